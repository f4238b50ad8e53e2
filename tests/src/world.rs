//! Licenses, holders and grants of nobody, and the requests that make them.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use client::Issue;
use exchange::participant::DelayClass;
use schemas::date::Date;
use schemas::holder::HolderRef;
use schemas::license_type::LicenseType;
use schemas::routes::Route;
use schemas::synthetic::{Synthetic, SyntheticLicense};
use serde_json::{Value, json};

use crate::client::{Call, Party};

/// Numbers that differ between all tests, above the seeds that tests choose by hand.
static NEXT: AtomicU64 = AtomicU64::new(1 << 32);

fn next() -> u64 {
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// A fresh idempotency key.
pub fn key() -> String {
    format!("end-to-end-{:013}", next())
}

/// Now, ms since 1970.
pub fn now_ms() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

/// An hour from now, RFC 3339.
pub fn in_one_hour() -> String {
    schemas::date::rfc3339(now_ms() + 3_600_000)
}

/// The nine built-in types.
pub fn all_types() -> Vec<LicenseType> {
    LicenseType::builtin()
}

fn of_code(code: &str) -> LicenseType {
    all_types().into_iter().find(|license_type| license_type.code.as_str() == code).unwrap()
}

/// A type of natural persons with one holder and an optional end: 居民身份证.
pub fn natural() -> LicenseType {
    of_code("11100000DE0000022B002")
}

/// A type of natural persons with a field `level`: 职业资格证书.
pub fn qualification() -> LicenseType {
    of_code("11100000DE00000306002")
}

/// A type of legal persons with one holder and an optional end: 营业执照.
pub fn legal() -> LicenseType {
    of_code("11100000MB0341032Y001")
}

/// A complete use context.
pub fn use_context() -> Value {
    json!({
        "userName": "测试经办人", "itemCode": "11440100MB2D00000000044010000001", "itemName": "测试事项",
        "businessCode": "CS20260001", "cause": "核验申请材料", "stage": "受理",
    })
}

/// A holder as requests name it.
pub fn holder(holder: &HolderRef) -> Value {
    json!({"typeCode": holder.type_code().as_str(), "number": holder.number()})
}

/// A license to be issued.
#[derive(Clone, Debug)]
pub struct Draft {
    /// Its type.
    pub license_type: LicenseType,
    /// Its serial.
    pub serial: String,
    /// Its content.
    pub license: SyntheticLicense,
}

impl Draft {
    /// As requests name it, without the envelope around it.
    pub fn value(&self) -> Value {
        self.license.request(&self.license_type.code, &self.serial)
    }

    /// The request that issues it.
    pub fn call(&self) -> Call {
        Call::new(Route::Issue, &json!({"license": self.value()}))
    }

    /// Its first holder.
    pub fn holder(&self) -> &HolderRef {
        &self.license.holders.first().unwrap().1
    }

    /// The same with another name of its first holder, on the face too.
    #[must_use]
    pub fn of_name(mut self, name: &str) -> Self {
        let license = &mut self.license;
        let before = std::mem::replace(&mut license.holders.first_mut().unwrap().0, name.to_owned());
        for (_, value) in license.fields.iter_mut().filter(|(_, value)| *value == before) {
            *value = name.to_owned();
        }
        self
    }

    /// The same for another first holder, on the face too.
    #[must_use]
    pub fn of_holder(mut self, holder: &HolderRef) -> Self {
        let license = &mut self.license;
        let before = std::mem::replace(&mut license.holders.first_mut().unwrap().1, holder.clone());
        for (_, value) in &mut license.fields {
            if *value == before.number() {
                *value = holder.number().to_owned();
            } else if Some(&*value) == before.birth_date().as_ref() {
                *value = holder.birth_date().unwrap();
            }
        }
        self
    }

    /// Issues it.
    pub async fn issue(&self, issuer: &mut Party) -> Issued {
        let license = serde_json::from_value(self.value()).unwrap();
        let issued = issuer.typed().issue(&Issue { license }).await;
        let issued = issued.unwrap_or_else(|error| panic!("{error}")).value;
        let (identifier, envelope) = (issued.identifier.to_string(), issued.envelope.0);
        Issued { identifier, envelope, draft: self.clone() }
    }
}

/// A fresh license of a type, in force today.
pub fn draft(license_type: &LicenseType) -> Draft {
    let today = Date::at(i64::try_from(now_ms() / 1_000).unwrap());
    let mut synthetic = Synthetic::new(next());
    let license = synthetic.license(license_type, today);
    Draft { license_type: license_type.clone(), serial: synthetic.serial().as_str().to_owned(), license }
}

/// The same, its end long past.
pub fn draft_ended(license_type: &LicenseType) -> Draft {
    let mut draft = draft(license_type);
    let license = &mut draft.license;
    license.issue_date = "2001-01-01".parse().unwrap();
    license.valid_from = license.issue_date;
    license.valid_until = Some("2002-12-31".parse().unwrap());
    draft
}

/// A license that was issued.
#[derive(Clone, Debug)]
pub struct Issued {
    /// Identifier of its version.
    pub identifier: String,
    /// The signed bytes.
    pub envelope: Vec<u8>,
    /// What it says.
    pub draft: Draft,
}

impl Issued {
    /// From an issue answer, or that of an operation that makes a version.
    pub fn new(draft: Draft, answer: &Value) -> Self {
        Self {
            identifier: answer["identifier"].as_str().unwrap().to_owned(),
            envelope: BASE64.decode(answer["envelope"].as_str().unwrap()).unwrap(),
            draft,
        }
    }

    /// As uses name it.
    pub fn named(&self) -> Value {
        json!({"identifier": self.identifier})
    }

    /// A verify request by identifier, perhaps with a grant.
    pub fn verify(&self, grant: Option<&str>) -> Call {
        let mut body = json!({"license": self.named(), "use": use_context()});
        if let Some(grant) = grant {
            body["grant"] = json!(grant);
        }
        Call::new(Route::Verify, &body)
    }

    /// A verify request by envelope.
    pub fn verify_envelope(&self) -> Call {
        let license = json!({"envelope": BASE64.encode(&self.envelope)});
        Call::new(Route::Verify, &json!({"license": license, "use": use_context()}))
    }

    /// A retrieval of some fields, perhaps with a grant.
    pub fn retrieve(&self, fields: &[&str], grant: Option<&str>) -> Call {
        let mut body =
            json!({"license": self.named(), "mode": "fields", "fields": fields, "use": use_context()});
        if let Some(grant) = grant {
            body["grant"] = json!(grant);
        }
        Call::new(Route::Retrieve, &body)
    }

    /// An operation on it.
    pub fn operation(&self, operation: &str, to: Option<&str>) -> Call {
        let mut body = json!({"identifier": self.identifier, "operation": operation, "reason": "测试"});
        if let Some(to) = to {
            body["to"] = json!(to);
        }
        Call::new(Route::Transition, &body)
    }

    /// An operation that makes a version with this content.
    pub fn operation_with(&self, operation: &str, draft: &Draft) -> Call {
        let body = json!({
            "identifier": self.identifier, "operation": operation, "reason": "测试", "license": draft.value(),
        });
        Call::new(Route::Transition, &body)
    }
}

/// What a grant is for.
#[derive(Clone, Copy, Debug)]
pub enum Target<'a> {
    /// One license.
    License(&'a Issued),
    /// All of the holder's licenses of a type.
    Type(&'a LicenseType),
}

/// A grant for an hour, all modes, the certificate number and the holder's name; change what should differ.
pub fn grant(of: &HolderRef, grantee: &Party, target: Target<'_>) -> Value {
    let mut value = json!({
        "holder": holder(of), "grantee": grantee.organisation.as_str(),
        "modes": ["verify", "fields", "face", "envelope", "copy", "search"],
        "fields": ["certificateNumber", "holderName"], "until": in_one_hour(),
    });
    match target {
        Target::License(issued) => value["identifier"] = json!(issued.identifier),
        Target::Type(license_type) => value["typeCode"] = json!(license_type.code.as_str()),
    }
    value
}

/// One delay class, as a registration has it.
pub fn delay_class(name: &str, days: u16) -> BTreeMap<String, DelayClass> {
    [(name.to_owned(), DelayClass { days, legal_basis: "测试法第一条".to_owned() })].into()
}

/// The request that ends a grant.
pub fn revoke(of: &HolderRef, grant: &str) -> Call {
    Call::new(Route::GrantRevoke, &json!({"grant": grant, "holder": holder(of), "reason": "测试撤回"}))
}
