"""The benchmark harness: one runner, many configurations, results as CSV rows, reports made from them."""
