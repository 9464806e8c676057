"""Prints what the Python port of HdrHistogram reads of an interval log, a line for each histogram."""

import sys

from hdrh.histogram import HdrHistogram
from hdrh.log import HistogramLogReader

PERCENTILES = [50.0, 90.0, 99.0, 99.9]

# The reader wants a histogram to add to; of each line it makes one of its own.
reader = HistogramLogReader(sys.argv[1], HdrHistogram(1, 2, 3))
while (histogram := reader.get_next_interval_histogram()) is not None:
    seconds = histogram.get_start_time_stamp() / 1000
    lengths = [histogram.get_value_at_percentile(percentile) for percentile in PERCENTILES]
    print(
        int(seconds),
        histogram.get_tag(),
        histogram.get_total_count(),
        *lengths,
        histogram.get_max_value(),
    )
