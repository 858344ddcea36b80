"""One page of HTML for a fit."""
