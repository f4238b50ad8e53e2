//! `POST /v1/participants/list`: the register, as far as the caller may see it.
//!
//! The path alone calls it. It changes no registration: a crash leaves its entry or nothing.

use ledger::DocumentKind;
use schemas::identifier::Uscc;
use schemas::routes::Route;
use serde_json::{Value, json};

use crate::capability::Capability;
use crate::capability::pages::{behind, documents, listed, whose};
use crate::gateway::case::Case;
use crate::gateway::change::Change;
use crate::gateway::names::Names;
use crate::gateway::permit::{Permit, Ruling};
use crate::keyed;
use crate::participant::Participant;
use crate::wire::read::{self, Body};
use crate::wire::refusal::Refusal;
use crate::wire::text::{Paging, PagingValue};

/// The capability.
pub(crate) struct List;

impl Capability<'_> for List {
    const ROUTE: Route = Route::ParticipantList;
    type Asked = Paging;
    /// The one registration that is shown; `None` for all.
    type Granted = Option<Uscc>;

    fn read(body: Body<'_>) -> Result<Paging, Refusal> {
        read::json::<PagingValue>(body.bytes)?.typed()
    }

    fn names<'a>(_asked: &'a Paging, _caller: &Uscc) -> Names<'a> {
        Names::default()
    }

    fn decide(
        _case: &mut Case<'_>,
        caller: &Participant,
        _asked: &Paging,
    ) -> Result<Ruling<Option<Uscc>>, Refusal> {
        Ok(Ruling::plain(whose(caller), Vec::new()))
    }

    async fn carry_out(
        change: &mut Change<'_>,
        asked: &Paging,
        permit: Permit<Option<Uscc>>,
    ) -> Result<Vec<u8>, Refusal> {
        let (only, paging) = (permit.into_granted(), *asked);
        let (page, ()) = listed(change, move |ledger| {
            let kind = DocumentKind::Participant;
            let found = match only.map(|organisation| keyed::participant_key(ledger.keyed(), &organisation)) {
                Some(key) => {
                    let one = ledger.state().document(kind, &key);
                    let asked = one.filter(|_| paging.after.is_none_or(|after| key > after));
                    asked.map(|document| (key, document)).into_iter().collect()
                }
                None => behind(ledger, kind, paging),
            };
            let (rows, next) = documents(&found, paging, |_, mut value: Value| {
                value.as_object_mut()?.retain(|_, value| !value.is_null());
                Some(value)
            });
            Ok((json!({"participants": rows, "next": next}), ()))
        })
        .await?;
        Ok(page)
    }
}
