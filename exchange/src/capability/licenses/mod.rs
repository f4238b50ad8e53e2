//! Licenses: made, changed, found, given out.
//!
//! Issue and transition alone change a license. Each change is in the frame of its entry, so a crash leaves both or
//! neither.

pub(crate) mod draft;
pub(crate) mod issue;
pub(crate) mod issued;
pub(crate) mod retrieve;
pub(crate) mod search;
pub(crate) mod stored;
pub(crate) mod transition;

pub(crate) use issue::issue_answer;
pub(crate) use retrieve::Given;
