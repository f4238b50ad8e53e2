//! Measures the exchange: what the criterion benches and the load-test tool share.
//!
//! Every number stands beside what bounds it: the same bytes appended bare to the same disk in the same run, or the
//! raw signature. An answer counts only if it is the right one, and a run counts only if its receipts check.

#![forbid(unsafe_code)]

pub mod baseline;
pub mod check;
pub mod compare;
pub mod drive;
pub mod entry;
pub mod environment;
pub mod folder;
pub mod html;
pub mod http;
pub mod journal;
pub mod live;
pub mod machine;
pub mod mix;
pub mod peers;
pub mod policies;
pub mod population;
pub mod process;
pub mod random;
pub mod records;
pub mod report;
pub mod run;
pub mod scenario;
pub mod server;
pub mod sign;
pub mod size;
pub mod submit;
pub mod target;
pub mod template;
pub mod timing;
pub mod world;
