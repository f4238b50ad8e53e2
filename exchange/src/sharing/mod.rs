//! Shared data (数据共享) as journaled: resources that departments publish, and applications of others to use them.
//!
//! Values; capabilities write them, decisions read them. Nothing here outlives the process but what an entry holds.

pub(crate) mod address;
pub(crate) mod application;
pub(crate) mod clock;
pub(crate) mod dictionary;
pub(crate) mod mismatch;
pub(crate) mod parties;
pub(crate) mod quality;
pub(crate) mod region;
pub(crate) mod resource;
