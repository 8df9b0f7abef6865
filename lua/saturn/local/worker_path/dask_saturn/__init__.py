"""What dask-saturn's client expects on the workers. An installed dask_saturn comes before this one.

The client registers its plugins by reference; when the import fails, Dask keeps the plugin and every
worker that starts later fails with it."""
