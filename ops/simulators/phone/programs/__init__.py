"""The programs on the simulated phone, by name; each module holds those of one subject."""

from collections.abc import Mapping

from ops.simulators.phone.programs import (
    activities,
    filesystem,
    input_events,
    keyboards,
    media,
    packages,
    reports,
    text,
)
from ops.simulators.phone.programs.call import Program

PROGRAMS: Mapping[str, Program] = {
    **text.PROGRAMS,
    **filesystem.PROGRAMS,
    **input_events.PROGRAMS,
    **keyboards.PROGRAMS,
    **activities.PROGRAMS,
    **packages.PROGRAMS,
    **reports.PROGRAMS,
    **media.PROGRAMS,
}
