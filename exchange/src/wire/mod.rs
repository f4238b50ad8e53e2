//! The forms on the wire: shapes of requests, forms of answers, refusals. Nothing here knows a route. Pure functions;
//! nothing to lose.

pub mod machine;
pub mod named;
pub(crate) mod object;
pub mod read;
pub mod refusal;
mod shape;
pub(crate) mod text;
