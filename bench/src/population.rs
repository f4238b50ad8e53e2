//! Licenses of nobody and the requests about them.

use std::time::{SystemTime, UNIX_EPOCH};

use schemas::date::{Date, rfc3339};
use schemas::holder::HolderRef;
use schemas::identifier::Uscc;
use schemas::license_type::LicenseType;
use schemas::synthetic::Synthetic;
use serde_json::json;

/// Digits of a case number (办件编号) after its prefix.
const CASE_DIGITS: usize = 16;
/// Stands for the digits until they are known; occurs nowhere else in a request.
const CASE_PLACE: &str = "CASECASECASECASE";
/// How long a grant is good, ms.
const GRANT_MS: u64 = 30 * 86_400_000;

/// A license to be issued.
pub struct Draft {
    /// Body of the issue request.
    pub body: Vec<u8>,
    /// Its idempotency key.
    pub key: String,
    /// First holder of a natural person's license: a use needs that holder's grant.
    pub grantor: Option<HolderRef>,
}

/// `count` licenses that are in force today, in turn of a natural person and of a legal person, over all built-in
/// types. Equal seeds give equal licenses.
pub fn drafts(seed: u64, count: usize) -> Vec<Draft> {
    let today = Date::at(i64::try_from(now_ms() / 1_000).unwrap_or(0));
    let (natural, legal): (Vec<_>, Vec<_>) =
        LicenseType::builtin().into_iter().partition(LicenseType::is_natural_person);
    let mut synthetic = Synthetic::new(seed);
    let mut types = natural.iter().cycle().zip(legal.iter().cycle()).flat_map(<[_; 2]>::from);
    std::iter::from_fn(|| types.next())
        .take(count)
        .map(|license_type| draft(&mut synthetic, license_type, today))
        .collect()
}

fn draft(synthetic: &mut Synthetic, license_type: &LicenseType, today: Date) -> Draft {
    let license = synthetic.license(license_type, today);
    let serial = synthetic.serial();
    let value = license.request(&license_type.code, serial.as_str());
    let natural = license_type.is_natural_person();
    Draft {
        body: json!({ "license": value }).to_string().into_bytes(),
        key: format!("bench-issue-{}", serial.as_str()),
        grantor: license.holders.into_iter().next().map(|(_, holder)| holder).filter(|_| natural),
    }
}

/// Body of a grant that lets `grantee` verify one license, without a limit of uses.
pub fn grant_body(identifier: &str, grantor: &HolderRef, grantee: &Uscc) -> Vec<u8> {
    json!({
        "holder": {"typeCode": grantor.type_code().as_str(), "number": grantor.number()},
        "grantee": grantee.as_str(), "identifier": identifier, "modes": ["verify"],
        "until": rfc3339(now_ms() + GRANT_MS),
    })
    .to_string()
    .into_bytes()
}

/// A verify request that is written once and given a case number each time it is sent.
#[derive(Clone)]
pub struct VerifyRequest {
    bytes: Vec<u8>,
    case_at: usize,
}

impl VerifyRequest {
    /// The body alone.
    pub fn body(identifier: &str, grant: Option<&str>) -> Self {
        let mut value = json!({
            "license": {"identifier": identifier},
            "use": {
                "userName": "压测经办人", "itemCode": "11440100MB2D00000000044010000001", "itemName": "压测事项",
                "businessCode": format!("BENCH{CASE_PLACE}"), "cause": "压测: 核验申请材料", "stage": "受理",
            },
        });
        if let Some(grant) = grant {
            value["grant"] = json!(grant);
        }
        let text = value.to_string();
        let case_at = text.find(CASE_PLACE).expect("the case number was just written");
        Self { bytes: text.into_bytes(), case_at }
    }

    /// The same with an HTTP/1.1 head before it.
    pub fn with_head(self, head: &[u8]) -> Self {
        Self { case_at: head.len() + self.case_at, bytes: [head, &self.bytes].concat() }
    }

    /// Bytes of the request.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether there is nothing in it; never.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Writes the request with a case number into `buffer`, in place of what is there.
    pub fn write(&self, case: u64, buffer: &mut Vec<u8>) {
        buffer.clear();
        buffer.extend_from_slice(&self.bytes);
        let mut rest = case;
        for digit in buffer[self.case_at..self.case_at + CASE_DIGITS].iter_mut().rev() {
            *digit = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
    }
}

/// Now, ms since 1970.
pub fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use exchange::request;
    use schemas::routes::Route;

    #[test]
    fn half_of_the_licenses_need_a_grant_and_every_request_parses() {
        let drafts = drafts(1, 40);
        assert_eq!(drafts.iter().filter(|draft| draft.grantor.is_some()).count(), 20);
        for draft in &drafts {
            request::parse(Route::Issue, &draft.body).unwrap();
        }
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
        template.clone().with_head(b"POST / HTTP/1.1\r\n\r\n").write(1, &mut first);
        assert!(first.starts_with(b"POST"));
        assert!(String::from_utf8(first).unwrap().contains("\"BENCH0000000000000001\""));
    }
}
