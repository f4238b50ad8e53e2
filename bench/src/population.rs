//! Licenses of nobody: drafts, the file that says what a bench folder holds, and the requests about them.
//!
//! Everything about a license follows from its number, but what the exchange or chance decided: the grant and the
//! holder. Those are in the file `bench.population` of the folder, so that millions of licenses need no more memory
//! than that.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, ensure};
use schemas::date::{Date, rfc3339};
use schemas::holder::HolderRef;
use schemas::identifier::{CertificateIdentifier, LicenseTypeCode, Uscc};
use schemas::license_type::{FieldKind, LicenseType};
use schemas::synthetic::Synthetic;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::random::Random;
use crate::template::{Place, Template, digits};

/// Characters of a serial.
pub const SERIAL_BYTES: usize = 20;
/// `1.2.156.3005.2.`, type, issuer, serial, version and check character, with their points.
pub const IDENTIFIER_BYTES: usize = 15 + 21 + 1 + 18 + 1 + SERIAL_BYTES + 1 + 3 + 1 + 1;
/// How long a grant is good, ms.
const GRANT_MS: u64 = 30 * 86_400_000;
/// Name of the file in a bench folder.
const FILE: &str = "bench.population";
/// Its format.
const FORMAT: u32 = 1;
/// Length of a record of each natural person's license: holder's type code (3), number (18), grant (16).
const RECORD_BYTES: usize = 37;

/// A license to be issued.
pub struct Draft {
    /// Body of the issue request.
    pub body: Vec<u8>,
    /// Its idempotency key.
    pub key: String,
    /// First holder of a natural person's license: a use needs that holder's grant.
    pub grantor: Option<HolderRef>,
}

/// How long the body of an issue request is, and how often.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Size {
    /// Bytes; the type's fields bound them.
    pub bytes: usize,
    /// Weight among all sizes.
    pub share: f64,
}

/// Which licenses a population has.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Plan {
    /// How many; in turn of a natural person and of a legal person.
    pub licenses: u64,
    /// Equal seeds give equal licenses.
    pub seed: u64,
    /// Lengths of the issue requests; empty leaves them as they come.
    pub sizes: Vec<Size>,
    /// Rows of a hosted resource, each about a company of its own.
    #[serde(default)]
    pub rows: u64,
}

/// Makes drafts: what is the same for all of them.
pub struct Drafts {
    plan: Plan,
    natural: Vec<LicenseType>,
    legal: Vec<LicenseType>,
    today: Date,
}

impl Drafts {
    /// Licenses that are in force today, over all built-in types.
    pub fn new(plan: Plan) -> Self {
        let today = Date::at(i64::try_from(now_ms() / 1_000).unwrap_or(0));
        let (natural, legal) = LicenseType::builtin().into_iter().partition(LicenseType::is_natural_person);
        Self { plan, natural, legal, today }
    }

    /// The type of a license; natural persons' are the even numbers.
    fn license_type(&self, number: u64) -> &LicenseType {
        let types = if number.is_multiple_of(2) { &self.natural } else { &self.legal };
        // The built-in types have both kinds; a test says so.
        &types[(number / 2) as usize % types.len()]
    }

    /// One license; `serial` is its own.
    pub fn draft(&self, number: u64, serial: &str) -> Draft {
        let license_type = self.license_type(number);
        let mut random = Random::new(self.plan.seed ^ number.wrapping_mul(0xd6e8_feb8_6659_fd93));
        let license = Synthetic::new(random.bits()).license(license_type, self.today);
        let mut value = license.request(&license_type.code, serial);
        // No two licenses have the same number on them.
        value["certificateNumber"] = json!(format!("CS{serial}"));
        let mut value = json!({ "license": value });
        if let Some(bytes) = self.size(&mut random) {
            fill(&mut value, license_type, bytes);
        }
        let natural = license_type.is_natural_person();
        Draft {
            body: value.to_string().into_bytes(),
            key: format!("bench-issue-{serial}"),
            grantor: license.holders.into_iter().next().map(|(_, holder)| holder).filter(|_| natural),
        }
    }

    fn size(&self, random: &mut Random) -> Option<usize> {
        let total: f64 = self.plan.sizes.iter().map(|size| size.share).sum();
        let mut rest = random.unit() * total;
        let drawn = self.plan.sizes.iter().find(|size| {
            rest -= size.share;
            rest <= 0.0
        });
        drawn.or(self.plan.sizes.last()).map(|size| size.bytes)
    }
}

/// Lengthens texts that nothing else depends on until the request has so many bytes, or the type takes no more.
fn fill(value: &mut Value, license_type: &LicenseType, bytes: usize) {
    let mut missing = bytes.saturating_sub(value.to_string().len());
    for field in &license_type.fields {
        let free = field.repeats.is_none()
            && matches!(field.kind, FieldKind::Text | FieldKind::Address)
            && !field.key.to_ascii_lowercase().contains("name")
            && !field.key.to_ascii_lowercase().contains("number");
        let Some(Value::String(text)) = value["license"]["fields"].get_mut(&field.key).filter(|_| free)
        else {
            continue;
        };
        let room = field.max_length.saturating_sub(text.chars().count());
        let more = room.min(missing.div_ceil("测".len()));
        text.extend(std::iter::repeat_n('测', more));
        missing = missing.saturating_sub(more * "测".len());
    }
}

/// `count` drafts without a population around them, for the criterion benches.
pub fn drafts(seed: u64, count: usize) -> Vec<Draft> {
    let drafts = Drafts::new(Plan { licenses: count as u64, seed, sizes: Vec::new(), rows: 0 });
    (0..count as u64).map(|number| drafts.draft(number, &serial('B', number))).collect()
}

/// The serial of a license: a letter and its number.
pub fn serial(letter: char, number: u64) -> String {
    format!("{letter}{number:0width$}", width = SERIAL_BYTES - 1)
}

/// Body of a grant that lets `grantee` verify and retrieve one license, without a limit of uses.
pub fn grant_body(identifier: &str, grantor: &HolderRef, grantee: &Uscc) -> Vec<u8> {
    grant(identifier, grantor.type_code().as_str(), grantor.number(), grantee).to_string().into_bytes()
}

/// The same as a value, for texts that may be places.
pub fn grant(identifier: &str, type_code: &str, number: &str, grantee: &Uscc) -> Value {
    json!({
        "holder": {"typeCode": type_code, "number": number},
        "grantee": grantee.as_str(), "identifier": identifier, "modes": ["verify", "face", "envelope"],
        "until": rfc3339(now_ms() + GRANT_MS),
    })
}

/// A use context whose case number is a place.
pub fn use_context() -> Value {
    json!({
        "userName": "压测经办人", "itemCode": "11440100MB2D00000000044010000001", "itemName": "压测事项",
        "businessCode": format!("BENCH{}", Place::Case.letters()), "cause": "压测: 核验申请材料", "stage": "受理",
    })
}

/// A verify request that is written once and given a case number each time it is sent.
#[derive(Clone)]
pub struct VerifyRequest {
    template: Template,
}

impl VerifyRequest {
    /// The body alone.
    pub fn body(identifier: &str, grant: Option<&str>) -> Self {
        let mut value = json!({"license": {"identifier": identifier}, "use": use_context()});
        if let Some(grant) = grant {
            value["grant"] = json!(grant);
        }
        Self { template: Template::body(&value) }
    }

    /// Writes the request with a case number into `buffer`, in place of what is there.
    pub fn write(&self, case: u64, buffer: &mut Vec<u8>) {
        buffer.clear();
        self.template.write(buffer, |_, into| digits(case, into));
    }
}

/// The licenses of a folder.
pub struct Population {
    plan: Plan,
    /// Beginnings of identifiers up to the serial: by type, in the order of its licenses.
    prefixes: [Vec<Vec<u8>>; 2],
    /// Check characters of all identifiers.
    checks: Vec<u8>,
    /// Records of natural persons' licenses.
    records: Vec<u8>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Header {
    format: u32,
    plan: Plan,
}

/// What a natural person's license needs to be used.
pub struct Right<'a> {
    /// The holder's type code.
    pub holder_type: &'a [u8],
    /// The holder's number.
    pub holder_number: &'a [u8],
    /// The grant.
    pub grant: &'a [u8],
}

/// What population makes of its folder.
pub struct Records {
    plan: Plan,
    bytes: Vec<u8>,
}

impl Records {
    /// For all natural persons' licenses of a plan.
    pub fn new(plan: Plan) -> Self {
        let count = plan.licenses.div_ceil(2) as usize;
        Self { plan, bytes: vec![0; count * RECORD_BYTES] }
    }

    /// Notes what a natural person's license got.
    ///
    /// # Errors
    /// There is no such license, or the grant is none.
    pub fn set(&mut self, number: u64, grantor: &HolderRef, grant: &str) -> anyhow::Result<()> {
        let at = (number / 2) as usize * RECORD_BYTES;
        let record = self.bytes.get_mut(at..at + RECORD_BYTES).context("a license of this population")?;
        let (holder, id) = record.split_at_mut(21);
        let text = [grantor.type_code().as_str().as_bytes(), grantor.number().as_bytes()].concat();
        ensure!(text.len() == holder.len(), "a holder's number has 18 characters");
        holder.copy_from_slice(&text);
        let grant = hex::decode(grant).ok().filter(|grant| grant.len() == id.len());
        id.copy_from_slice(&grant.context("a grant has 32 hex digits")?);
        Ok(())
    }

    /// Writes the file, whole or not at all: a folder without it is not populated.
    ///
    /// # Errors
    /// The file system's.
    pub fn save(&self, folder: &Path) -> anyhow::Result<()> {
        let temporary = folder.join(format!("{FILE}.new"));
        let mut file = File::create(&temporary)?;
        let header = serde_json::to_string(&Header { format: FORMAT, plan: self.plan.clone() })?;
        file.write_all(header.as_bytes())?;
        file.write_all(b"\n")?;
        file.write_all(&self.bytes)?;
        file.sync_all()?;
        std::fs::rename(&temporary, folder.join(FILE))?;
        Ok(File::open(folder)?.sync_all()?)
    }
}

impl Population {
    /// Whether a folder is populated.
    pub fn exists(folder: &Path) -> bool {
        folder.join(FILE).exists()
    }

    /// Reads the licenses of a folder that `issuer` has issued.
    ///
    /// # Errors
    /// There is no such file, or it is damaged.
    pub fn load(folder: &Path, issuer: Uscc) -> anyhow::Result<Self> {
        let path = folder.join(FILE);
        let bytes = std::fs::read(&path).with_context(|| path.display().to_string())?;
        let end = bytes.iter().position(|byte| *byte == b'\n').context("a header")?;
        let Header { format, plan } = serde_json::from_slice(&bytes[..end]).context("a header")?;
        ensure!(format == FORMAT, "{} has format {format}", path.display());
        let records = bytes[end + 1..].to_vec();
        let natural = plan.licenses.div_ceil(2) as usize;
        ensure!(records.len() == natural * RECORD_BYTES, "{} is not whole", path.display());
        let drafts = Drafts::new(plan.clone());
        let identifier = |license_type: &LicenseType, number| {
            let serial = serial('B', number).parse().map_err(|_| anyhow::anyhow!("a serial"))?;
            anyhow::Ok(
                CertificateIdentifier::new(license_type.code, issuer, serial, 1)?.to_string().into_bytes(),
            )
        };
        let prefix = |license_type: &LicenseType| {
            let mut bytes = identifier(license_type, 0)?;
            bytes.truncate(IDENTIFIER_BYTES - 6 - SERIAL_BYTES);
            anyhow::Ok(bytes)
        };
        let prefixes = [&drafts.natural, &drafts.legal]
            .map(|types| types.iter().map(prefix).collect::<anyhow::Result<Vec<_>>>());
        let [natural, legal] = prefixes;
        let mut checks = Vec::with_capacity(plan.licenses as usize);
        for number in 0..plan.licenses {
            let whole = identifier(drafts.license_type(number), number)?;
            ensure!(whole.len() == IDENTIFIER_BYTES, "an identifier of {} bytes", whole.len());
            checks.extend(whole.last());
        }
        Ok(Self { plan, prefixes: [natural?, legal?], checks, records })
    }

    /// Which licenses it has.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Writes a license's identifier.
    pub fn identifier(&self, number: u64, into: &mut [u8]) {
        let types = &self.prefixes[(number % 2) as usize];
        let prefix = &types[(number / 2) as usize % types.len()];
        let (start, rest) = into.split_at_mut(prefix.len());
        start.copy_from_slice(prefix);
        rest[0] = b'B';
        digits(number, &mut rest[1..SERIAL_BYTES]);
        rest[SERIAL_BYTES..SERIAL_BYTES + 5].copy_from_slice(b".001.");
        rest[SERIAL_BYTES + 5] = self.checks[number as usize];
    }

    /// What a natural person's license needs to be used; `None` for a legal person's.
    pub fn right(&self, number: u64) -> Option<Right<'_>> {
        if !number.is_multiple_of(2) {
            return None;
        }
        let at = (number / 2) as usize * RECORD_BYTES;
        let record = self.records.get(at..at + RECORD_BYTES)?;
        Some(Right { holder_type: &record[..3], holder_number: &record[3..21], grant: &record[21..] })
    }
}

/// Body of a verify request about a type's license, whose values are places.
pub fn verify_value(with_grant: bool) -> Value {
    let mut value = json!({"license": {"identifier": Place::Identifier.letters()}, "use": use_context()});
    if with_grant {
        value["grant"] = json!(Place::Grant.letters());
    }
    value
}

/// The type codes of all built-in types.
pub fn type_codes() -> Vec<LicenseTypeCode> {
    LicenseType::builtin().into_iter().map(|license_type| license_type.code).collect()
}

/// Now, ms since 1970.
pub fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use exchange::gateway::dry;
    use schemas::routes::Form;
    use schemas::routes::Route;

    fn plan(licenses: u64) -> Plan {
        Plan { licenses, seed: 1, sizes: Vec::new(), rows: 0 }
    }

    #[test]
    fn half_of_the_licenses_need_a_grant_and_every_request_parses() {
        let drafts = drafts(1, 40);
        assert_eq!(drafts.iter().filter(|draft| draft.grantor.is_some()).count(), 20);
        for draft in &drafts {
            dry::read(Route::Issue, Form::Json, &draft.body).unwrap();
        }
        assert_eq!(drafts[7].body, super::drafts(1, 40)[7].body);
        assert_ne!(drafts[7].body, super::drafts(2, 40)[7].body);
    }

    #[test]
    fn drafts_have_the_length_asked_for_as_far_as_their_type_allows() {
        let sizes = vec![Size { bytes: 1_200, share: 1.0 }, Size { bytes: 100_000, share: 1.0 }];
        let drafts = Drafts::new(Plan { sizes, ..plan(0) });
        let lengths: Vec<usize> = (0..200)
            .map(|number| {
                let body = drafts.draft(number, &serial('B', number)).body;
                dry::read(Route::Issue, Form::Json, &body).unwrap();
                body.len()
            })
            .collect();
        assert!(lengths.iter().any(|length| (1_200..1_203).contains(length)), "{lengths:?}");
        let longest = lengths.iter().max().unwrap();
        assert!((5_000..10_000).contains(longest), "no built-in type takes 100 kB: {longest}");
    }

    #[test]
    fn only_the_case_number_differs_between_two_requests() {
        let identifier = "1.2.156.3005.2.11100000MB03271699001.11100000MB03271699.TEST0001.001.";
        let template = VerifyRequest::body(identifier, Some("00"));
        let (mut first, mut second) = (Vec::new(), Vec::new());
        template.write(1, &mut first);
        template.write(9_876_543_210, &mut second);
        let text = String::from_utf8(second).unwrap();
        assert!(text.contains("\"BENCH0000009876543210\""));
        assert_eq!(text.replace("9876543210", "0000000001").into_bytes(), first);
        dry::read(Route::Verify, Form::Json, &first).unwrap_err();
    }

    #[test]
    fn a_population_reads_back_and_gives_true_identifiers() {
        let folder = tempfile::tempdir().unwrap();
        let issuer = exchange::init::development_organisations()[0];
        assert!(!Population::exists(folder.path()) && Population::load(folder.path(), issuer).is_err());
        let mut records = Records::new(plan(21));
        let drafts = Drafts::new(plan(21));
        let grantor = |number| drafts.draft(number, &serial('B', number)).grantor;
        for number in (0..21).step_by(2) {
            let grant = format!("{number:032x}");
            records.set(number, &grantor(number).unwrap(), &grant).unwrap();
        }
        assert!(records.set(22, &grantor(0).unwrap(), &"0".repeat(32)).is_err());
        assert!(records.set(0, &grantor(0).unwrap(), "0").is_err());
        records.save(folder.path()).unwrap();
        let population = Population::load(folder.path(), issuer).unwrap();
        assert_eq!(population.plan(), &plan(21));
        for number in 0..21 {
            let mut identifier = [0; IDENTIFIER_BYTES];
            population.identifier(number, &mut identifier);
            let parsed: CertificateIdentifier = std::str::from_utf8(&identifier).unwrap().parse().unwrap();
            assert_eq!(parsed.serial().as_str(), serial('B', number));
            assert_eq!(parsed.type_code(), drafts.license_type(number).code);
            match population.right(number) {
                Some(right) => {
                    assert_eq!(right.holder_number, grantor(number).unwrap().number().as_bytes());
                    assert_eq!(right.grant[15], number as u8);
                }
                None => assert_eq!(number % 2, 1),
            }
        }
        let path = folder.path().join(FILE);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes.pop();
        std::fs::write(&path, bytes).unwrap();
        assert!(Population::load(folder.path(), issuer).is_err());
    }
}
