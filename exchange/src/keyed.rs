//! How things are named in the ledger: keyed hashes of what they are known by outside (section 7 of the formats). A
//! reader who has the journal and not the key learns nothing from them.
//!
//! Pure functions under the index key; nothing to lose. The names that they make stand in journals for good.

use ledger::{Key, KeyedHash, Label};
use schemas::holder::HolderRef;
use schemas::identifier::{CertificateIdentifier, LicenseTypeCode, Uscc};
use schemas::license_type::MAX_HOLDERS;
use schemas::text::{self, Comparison};

use crate::admission::Limit;

/// Key of a license: type, issuer and serial, the same for all its versions.
pub fn license_key(keyed: &KeyedHash, identifier: &CertificateIdentifier) -> Key {
    let type_code = identifier.type_code();
    let serial = identifier.serial().as_str().as_bytes();
    keyed.key("license", &[type_code.as_bytes(), identifier.issuer().as_bytes(), serial])
}

/// Tag of a 证照编号 within its type, in the form in which numbers are compared.
pub fn number_tag(keyed: &KeyedHash, type_code: &LicenseTypeCode, number: &str) -> u64 {
    let number = text::fold(Comparison::Number, number);
    keyed.tag("number", &[type_code.as_bytes(), number.as_bytes()])
}

/// Key of a holder.
pub fn holder_key(keyed: &KeyedHash, holder: &HolderRef) -> Key {
    keyed.key("holder", &[holder.type_code().as_str().as_bytes(), holder.number().as_bytes()])
}

/// Key of the link that a portal made between a holder and an agent.
pub fn link_key(keyed: &KeyedHash, portal: &Uscc, holder: &HolderRef, agent: &HolderRef) -> Key {
    let (holder, agent) = (holder_key(keyed, holder), holder_key(keyed, agent));
    keyed.key("link", &[portal.as_bytes(), &holder, &agent])
}

/// Key of a license type's document.
pub fn type_key(keyed: &KeyedHash, code: &LicenseTypeCode) -> Key {
    keyed.key("type", &[code.as_bytes()])
}

/// Holders that are nobody: a denial concerns them in place of those whom there are not, so that it is the same work.
pub const NOBODIES: u8 = MAX_HOLDERS as u8;

/// Keys of the holders that are nobody. No request names one of them: there is no such holder type.
pub fn nobody_keys(keyed: &KeyedHash) -> impl Iterator<Item = Key> + '_ {
    (0..NOBODIES).map(|number| keyed.key("nobody", &[&[number]]))
}

/// Key of the document with what was fixed when the log was made.
pub fn rules_key(keyed: &KeyedHash) -> Key {
    keyed.key("rules", &[])
}

/// Tag of a service item code.
pub fn item_tag(keyed: &KeyedHash, item_code: &str) -> u64 {
    keyed.tag("item", &[item_code.as_bytes()])
}

/// Tag of an organisation's user: the pseudonym that holders are told.
pub fn user_tag(keyed: &KeyedHash, organisation: &Uscc, user_name: &str) -> u64 {
    keyed.tag("user", &[organisation.as_bytes(), user_name.as_bytes()])
}

/// Key of the counter of a grant's use of a license, or of a type, in a case.
pub fn case_key(keyed: &KeyedHash, grant: &Key, license: &Key, item_code: &str, case: &str) -> Key {
    keyed.key("case", &[grant, license, item_code.as_bytes(), case.as_bytes()])
}

/// Key of the counter of an identity assertion that is good once.
pub fn assertion_key(keyed: &KeyedHash, issuer: &str, id: &str) -> Key {
    keyed.key("assertion", &[issuer.as_bytes(), id.as_bytes()])
}

/// Key of the counter of an organisation's uses of a day.
pub fn quota_key(keyed: &KeyedHash, organisation: &Uscc) -> Key {
    keyed.key("quota", &[organisation.as_bytes(), b"uses"])
}

/// Key of the counter of a limit's uses: of its day, or of a period.
pub fn limit_key(keyed: &KeyedHash, organisation: &Uscc, limit: &Limit, period: Option<u64>) -> Key {
    let of_type = limit.type_code.as_ref().map_or(b"*".as_slice(), |code| code.as_bytes());
    let parts = [organisation.as_bytes().as_slice(), limit.facility.name().as_bytes(), of_type];
    match period {
        None => keyed.key("limit", &parts),
        Some(number) => keyed.key("rate", &[parts[0], parts[1], parts[2], &number.to_be_bytes()]),
    }
}

/// The handle by which a verifier knows a holder who showed it a code: another one for each verifier, so two of them cannot
/// join what they know.
pub fn subject_handle(keyed: &KeyedHash, verifier: &Uscc, holder: &Label) -> Key {
    keyed.key("subject", &[verifier.as_bytes(), holder])
}

/// Key of a participant's document.
pub fn participant_key(keyed: &KeyedHash, organisation: &Uscc) -> Key {
    keyed.key("participant", &[organisation.as_bytes()])
}
