"""The dialects of AI providers, one module each: requests, answers, finish reasons and error codes of that vendor."""

from workers.ai.providers.anthropic import ANTHROPIC
from workers.ai.providers.dialect import Dialect
from workers.ai.providers.openai import OPENAI
from workers.ai.providers.perplexity import PERPLEXITY
from workers.ai.providers.zai import ZAI

DIALECTS: dict[str, Dialect] = {"openai": OPENAI, "zai": ZAI, "perplexity": PERPLEXITY, "anthropic": ANTHROPIC}
"""By the `dialect` of a provider's table."""
