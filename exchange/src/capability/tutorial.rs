//! `POST /v1/licenses/count`: how many licenses a holder has, for the portal that vouches for the holder.
//!
//! The path alone calls it. It changes no license: a crash leaves its entry or nothing.

use schemas::holder::HolderRef;
use schemas::identifier::Uscc;
use schemas::routes::Route;
use serde::{Deserialize, Serialize};

use crate::capability::Capability;
use crate::gateway::case::Case;
use crate::gateway::change::{Change, json as answer};
use crate::gateway::names::{HOLDER, Names};
use crate::gateway::permit::{Permit, Ruling};
use crate::participant::Participant;
use crate::wire::named::Holder;
use crate::wire::read::{Body, json};
use crate::wire::refusal::{Placed as _, Refusal};

/// The capability.
pub(crate) struct Count;

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Request<'a> {
    #[serde(borrow)]
    holder: Holder<'a>,
}

#[derive(Serialize)]
struct Answer {
    licenses: usize,
}

impl Capability<'_> for Count {
    const ROUTE: Route = Route::Search;
    type Asked = HolderRef;
    type Granted = usize;

    fn read(body: Body<'_>) -> Result<HolderRef, Refusal> {
        json::<Request<'_>>(body.bytes)?.holder.typed().under("holder")
    }

    fn names<'a>(asked: &'a HolderRef, _caller: &Uscc) -> Names<'a> {
        Names::default().person(asked, HOLDER)
    }

    fn decide(
        case: &mut Case<'_>,
        _caller: &Participant,
        asked: &HolderRef,
    ) -> Result<Ruling<usize>, Refusal> {
        let holder = case.holder(asked).map(|holder| holder.label);
        let licenses = holder.map_or(0, |label| case.licenses_of(&label).len());
        Ok(Ruling::plain(licenses, holder.into_iter().collect()))
    }

    async fn carry_out(
        _change: &mut Change<'_>,
        _asked: &HolderRef,
        permit: Permit<usize>,
    ) -> Result<Vec<u8>, Refusal> {
        Ok(answer(&Answer { licenses: permit.into_granted() }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capability::reasons::World;

    #[test]
    fn a_count_is_decided_over_a_table() {
        let world = World::new();
        let body = serde_json::json!({"holder": world.holder()}).to_string();
        assert!(world.ask::<Count>(&world.portal, &body).is_ok());
        let no_holder = r#"{"holder":{"typeCode":"111","number":"1"}}"#;
        assert!(world.ask::<Count>(&world.portal, no_holder).is_err());
    }
}

#[cfg(test)]
mod same {
    /// The tutorial's route is in no table, so it borrows a row here.
    #[test]
    fn the_tutorial_is_this_file() {
        let code = include_str!("tutorial.rs").split("\n#[cfg(test)]\nmod same").next();
        let code = code.expect("code").replace("Route::Search", "Route::LicenseCount");
        let tutorial = include_str!("../../README.md");
        let block =
            tutorial.split("```rust\n").find(|part| part.starts_with("//! `POST /v1/licenses/count`"));
        let block = block.and_then(|part| part.split("```").next());
        assert_eq!(block, Some(&*code), "exchange/README.md shows another file");
    }
}
