"""From image to label map: windows, rolling basis, decoding by rows."""
