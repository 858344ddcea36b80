"""Published structural models as values to assign to `dynamics`."""
