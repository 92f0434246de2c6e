"""The browser page: step up, enrol, my factors, my elevations. Server-rendered, with one small script."""
