"""Tables of records: read, checked, and made arrays; regimens."""
