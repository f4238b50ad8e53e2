//! The samples of a quickstart, in `samples/` of its folder: generated persons, licenses, grants in three states, and a
//! walkthrough made for this folder and its ports.
//!
//! The quickstart alone writes them. A crash leaves some of the files, and the next run writes all of them anew.

use std::collections::BTreeSet;
use std::fs::Permissions;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use client::{Endpoint, GrantRevoke, Holder, License, Verify};
use schemas::holder::{HolderRef, HolderTypeCode};
use schemas::license_type::LicenseType;
use serde_json::{Value, json};

use super::party::{Issued, Party, REVOKE_EVERY, use_context};
use crate::config::Listen;
use crate::files::write_new;
use crate::moment::now_ms;

/// Folder of the samples in a data folder.
const FOLDER: &str = "samples";
const WALKTHROUGH: &str = include_str!("walkthrough.sh");
const EXPECTED: &str = include_str!("walkthrough.expected");
/// Type of the license that the walkthrough is about: professional qualification, of one person.
const TYPE: &str = "11100000DE00000306002";
/// How long the grant that is to expire lives, ms.
const SHORT_MS: u64 = 1_000;
/// How long the active grant lives, ms.
const LONG_MS: u64 = 365 * 24 * 3_600 * 1_000;

/// One grant, as it will stand in the file.
struct Grant {
    state: &'static str,
    id: String,
    until_ms: u64,
}

/// The facts that the samples are about.
pub(super) struct Samples {
    /// Places in the round's list: the license in force, then the revoked one.
    about: [usize; 2],
    /// Active, revoked, expired.
    grants: [Grant; 3],
    /// The organisation that they are for.
    grantee: String,
}

/// Chooses two licenses of the round, and has three grants made for the first: one stays active, one is revoked, and one
/// expires a second later.
pub(super) async fn begin(portal: &mut Party, issued: &[Issued], grantee: &str) -> anyhow::Result<Samples> {
    let holds_one = |holder: &HolderRef| {
        let all = issued.iter().flat_map(|one| &one.license.holders);
        all.filter(|(_, other)| other == holder).count() == 1
    };
    let found = |revoked: bool| {
        let mut numbers = (0..issued.len()).filter(|number| (number % REVOKE_EVERY == 1) == revoked);
        numbers.find(|number| {
            let Some(one) = issued.get(*number) else { return false };
            let wanted = one.identifier.type_code().as_str() == TYPE || revoked;
            match one.license.holders.as_slice() {
                [(_, holder)] => {
                    wanted && holder.type_code() == HolderTypeCode::CitizenNumber && holds_one(holder)
                }
                _ => false,
            }
        })
    };
    let about = [found(false).context("a license in force")?, found(true).context("a license to revoke")?];
    let one = &issued[about[0]];
    let mut grants = Vec::new();
    for (state, lives_ms) in [("active", LONG_MS), ("revoked", LONG_MS), ("expired", SHORT_MS)] {
        let until_ms = now_ms() + lives_ms;
        let grant = one.grant(grantee, &["certificateNumber", "holderName", "profession"], until_ms)?;
        let id = portal.ask(|client| client.grant(&grant)).await?.grant;
        grants.push(Grant { state, id, until_ms });
    }
    let [active, revoked, expired] = <[Grant; 3]>::try_from(grants).ok().context("three grants")?;
    let end = GrantRevoke {
        grant: revoked.id.clone(),
        holder: one.holder()?.into(),
        agent: None,
        reason: "演示: 撤回授权".to_owned(),
        assertion: None,
    };
    portal.ask(|client| client.revoke_grant(&end)).await?;
    Ok(Samples { about, grants: [active, revoked, expired], grantee: grantee.to_owned() })
}

impl Samples {
    /// Writes the files, in place of those of an earlier run, once the grant that is to expire has.
    pub(super) async fn write(
        &self,
        data: &Path,
        addresses: &Listen,
        issued: &[Issued],
    ) -> anyhow::Result<()> {
        let folder = data.join(FOLDER);
        std::fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
        // The first license of each type, and what the walkthrough is about.
        let numbers: BTreeSet<usize> = (0..LicenseType::builtin().len()).chain(self.about).collect();
        let (mut licenses, mut persons) = (Vec::new(), Vec::<Value>::new());
        for number in numbers {
            let one = issued.get(number).context("a license")?;
            let holders: Vec<Value> = one
                .license
                .holders
                .iter()
                .map(|(name, holder)| {
                    json!({"name": name, "typeCode": holder.type_code().as_str(), "number": holder.number()})
                })
                .collect();
            if one.natural {
                persons.extend(holders.iter().cloned());
            }
            let state = if number % REVOKE_EVERY == 1 { "07" } else { "01" };
            licenses.push(json!({
                "identifier": one.identifier, "certificateNumber": one.license.certificate_number,
                "holders": holders, "state": state,
            }));
        }
        let [in_force, revoked] = self.about;
        let one = issued.get(in_force).context("a license")?;
        let grants = self.grants.iter().map(|grant| {
            json!({
                "grant": grant.id, "state": grant.state, "holder": holder(one).ok(), "grantee": self.grantee,
                "identifier": one.identifier, "until": schemas::date::rfc3339(grant.until_ms),
            })
        });
        let other = issued.get(revoked).context("a license")?;
        let presented = Verify::new(License::by_envelope(other.envelope.clone()), use_context(revoked));
        let write = |name: &str, text: &str| write_new(&folder.join(name), text);
        write("persons.json", &format!("{:#}\n", json!(persons)))?;
        write("licenses.json", &format!("{:#}\n", json!(licenses)))?;
        write("grants.json", &format!("{:#}\n", json!(grants.collect::<Vec<_>>())))?;
        write("presented.json", &serde_json::to_string(&presented)?)?;
        write("walkthrough.expected", EXPECTED)?;
        write("walkthrough.sh", &self.walkthrough(addresses, one, other)?)?;
        std::fs::set_permissions(folder.join("walkthrough.sh"), Permissions::from_mode(0o700))?;
        let [.., expired] = &self.grants;
        tokio::time::sleep(Duration::from_millis(expired.until_ms.saturating_sub(now_ms()))).await;
        Ok(())
    }

    fn walkthrough(&self, addresses: &Listen, one: &Issued, other: &Issued) -> anyhow::Result<String> {
        let program = std::env::current_exe()?;
        let built = program.parent().context("a program lies in a folder")?;
        let debug = built.file_name().is_some_and(|name| name == "debug");
        let build = if debug { "cargo build -p verifier" } else { "cargo build --release -p verifier" };
        let (name, number) = one.license.holders.first().context("a license has a holder")?;
        let [active, revoked, expired] = &self.grants;
        let reached = |address: SocketAddr| Endpoint::from(address).to_string();
        let mut text = WALKTHROUGH.to_owned();
        for (key, value) in [
            ("DATA", reached(addresses.data)),
            ("PUBLIC", reached(addresses.public)),
            ("ADMIN", reached(addresses.admin)),
            ("VERIFIER", quoted(&built.join("verifier").display().to_string())),
            ("BUILD", build.to_owned()),
            ("APPROVAL", self.grantee.clone()),
            ("HOLDER", holder(one)?.to_string()),
            ("NAME", name.clone()),
            ("NUMBER", number.number().to_owned()),
            ("LICENSE", one.identifier.to_string()),
            ("CERTIFICATE", one.license.certificate_number.clone()),
            ("ACTIVE", active.id.clone()),
            ("REVOKED", revoked.id.clone()),
            ("EXPIRED", expired.id.clone()),
            ("OTHER", holder(other)?.to_string()),
        ] {
            let place = format!("@{key}@");
            ensure!(text.contains(&place), "the walkthrough has no {place}");
            text = text.replace(&place, &value);
        }
        Ok(text)
    }
}

/// The first holder as requests name it.
fn holder(one: &Issued) -> anyhow::Result<Value> {
    Ok(serde_json::to_value(Holder::from(one.holder()?))?)
}

/// A word of a shell that stands for this text.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_stays_one_word_of_a_shell() {
        assert_eq!(quoted("/a b/$HOME/it's"), r"'/a b/$HOME/it'\''s'");
    }
}
