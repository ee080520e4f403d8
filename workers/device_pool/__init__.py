"""The Android pool around its handler: which worker may touch which phone, each phone's queue, and who gets what for any phone."""
