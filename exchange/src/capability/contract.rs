//! The trait of a route: the part that is its own that the path asks, in its order.
//!
//! Each route implements it, and the path alone calls it. Nothing that a route makes is durable before step 7.

use ledger::record::DocumentState;
use schemas::identifier::Uscc;
use schemas::routes::Route;

use crate::capability::licenses::stored::StandsNow;
use crate::gateway::case::Case;
use crate::gateway::change::Change;
use crate::gateway::names::Names;
use crate::gateway::permit::{Permit, Ruling};
use crate::outgoing::Outgoing;
use crate::participant::Participant;
use crate::wire::read::Body;
use crate::wire::refusal::Refusal;

/// One data route, asked by a request that was received for `'r`. The route's own part stands in its file; the path
/// asks for it in this order.
pub(crate) trait Capability<'r> {
    /// Its row of the table of routes.
    const ROUTE: Route;
    /// A request, read where it was received.
    type Asked: Send + Sync;
    /// Findings of a decision that carrying it out needs.
    type Granted: Send;

    /// Step 1: reads a body, in one of the forms that the route speaks.
    ///
    /// # Errors
    /// Its faults, part by part.
    fn read(body: Body<'r>) -> Result<Self::Asked, Refusal>;

    /// Whom and what a request of a caller's is about, for permit and denial alike.
    fn names<'a>(asked: &'a Self::Asked, caller: &Uscc) -> Names<'a>;

    /// Steps 4 and 5: decides by what the case reads, for an active caller whose roles the route admits. Default deny. No ledger
    /// is in reach, so it is tested without one.
    ///
    /// # Errors
    /// The refusal, with the reason that only insiders learn.
    fn decide(
        case: &mut Case<'_>,
        caller: &Participant,
        asked: &Self::Asked,
    ) -> Result<Ruling<Self::Granted>, Refusal>;

    /// The license that a use discloses, and whether it is in force: an answer is given again only while this is as it says.
    fn disclosed(_case: &mut Case<'_>, _granted: &Self::Granted) -> Option<StandsNow> {
        None
    }

    /// When the right last changed, ms since 1970: an answer from before is not given again, and the request is judged anew.
    fn changed_ms(_granted: &Self::Granted) -> u64 {
        0
    }

    /// The document that a refusal writes, so that what was tried cannot be tried again.
    fn spoiled(_case: &mut Case<'_>, _asked: &Self::Asked, _refusal: &Refusal) -> Option<DocumentState> {
        None
    }

    /// Step 6: the change of state, and the bytes of the answer. Signing and reading of sealed records happen here, and only with
    /// a permit in hand.
    ///
    /// # Errors
    /// The permitted deed cannot be done.
    fn carry_out(
        change: &mut Change<'_>,
        asked: &Self::Asked,
        permit: Permit<Self::Granted>,
    ) -> impl Future<Output = Result<Vec<u8>, Refusal>> + Send;
}

/// A capability whose permit is carried out by a call to somebody else: to a data provider, to the exchange of another province.
/// Its intent is an entry before the call leaves, and its outcome another one, which names the first.
pub(crate) trait Relayed<'r>: Capability<'r> {
    /// A way to who is called.
    type Line: Send;
    /// An answer of who is called.
    type Reply: Clone + Send + Sync;

    /// Finds a way, before the intent. Nothing of the request leaves.
    ///
    /// # Errors
    /// There is none now: the request is refused, and no use is counted.
    fn reach(
        outgoing: &Outgoing,
        granted: &Self::Granted,
    ) -> impl Future<Output = Result<Self::Line, Refusal>> + Send;

    /// Calls, once the intent is durable: log and index say where it stands.
    ///
    /// # Errors
    /// The refusal that the outcome is.
    fn call(
        asked: &Self::Asked,
        granted: &Self::Granted,
        line: Self::Line,
        intent: (&str, u64),
    ) -> impl Future<Output = Result<Self::Reply, Refusal>> + Send;

    /// Puts the reply where [`Capability::carry_out`] makes the answer of it, by a decision made anew.
    fn take(granted: &mut Self::Granted, reply: Self::Reply, now_ms: u64);
}
