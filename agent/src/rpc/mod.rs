//! The services of guestline.v1. A handler validates and converts a request, makes one call into the domain beside it
//! (`files`, `processes`, `system`, `network`), and converts back. The domain knows neither tonic nor the proto types.

mod blocking;
mod processes;
mod status;
