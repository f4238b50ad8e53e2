//! Steps of the path without a journal: what benches measure alone. Nothing is answered here, and nothing is known
//! afterwards. Benches alone call it.

use ledger::Fact;
use schemas::codes::Code;
use schemas::routes::{Form, Route};

use super::Gateway;
use super::case::Case;
use crate::capability::{Capability, with_capability};
use crate::participant::{Caller, Certified};
use crate::rights::allowed::allowed;
use crate::wire::read::Body;

/// Step 1: whether a body is one that the route reads.
///
/// # Errors
/// The code of the refusal.
pub fn read(route: Route, form: Form, bytes: &[u8]) -> Result<(), Code> {
    if !route.contract().forms.contains(&form) {
        return Err(Code::WrongContentType);
    }
    with_capability!(route, Err(Code::NoSuchRoute), C => {
        C::read(Body { form, bytes }).map(|_| ()).map_err(|refusal| refusal.code)
    })
}

impl Gateway {
    /// Steps 1, 2, 4 and 5 at a moment, ms since 1970: whether a request would be permitted, and what was read for that.
    pub fn would_permit(
        &self,
        route: Route,
        caller: &Certified,
        bytes: &[u8],
        now_ms: u64,
    ) -> (bool, (Vec<(Fact, u32)>, u64)) {
        let mut case = Case::open(&self.ledger, &self.known, now_ms);
        let (place, registered) = case.registration(&caller.organisation);
        let caller = registered
            .and_then(|registered| Caller::identify(registered, place.version(), now_ms, caller).ok());
        let permitted = caller.is_some_and(|caller| {
            with_capability!(route, false, C => {
                C::read(Body { form: Form::Json, bytes }).is_ok_and(|asked| {
                    let names = C::names(&asked, &caller.participant().organisation);
                    allowed(&mut case, route, &caller, &names).is_ok()
                        && C::decide(&mut case, caller.participant(), &asked).is_ok()
                })
            })
        });
        (permitted, case.into_reads())
    }
}
