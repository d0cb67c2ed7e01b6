"""Everything done to a model update between training and the strategy; pure numpy."""
