//! Bodies of commands that speak to a serving exchange.

pub mod lists;
pub mod types;
