"""The Android pool: typed actions on real phones, through adb servers on any number of machines."""
