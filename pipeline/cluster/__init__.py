"""Many migrations over many hosts: what runs on each host, and what conducts them all by Dask."""
