"""The simulated phone: an `adbd` over TCP that a real adb server drives, for trying ISH Chat and testing it without a phone."""
