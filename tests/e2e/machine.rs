//! Machine peers send and get FlatBuffers: the same decisions, the same proofs, the same refusals.

use flatbuffers::FlatBufferBuilder;
use schemas::codes::Code;
use schemas::machine as fb;
use schemas::routes::Route;
use serde_json::{Value, json};
use tests::machine::{decode, encode, field};
use tests::{Call, Setup, draft, natural, now_ms, shared, use_context};
use verifier::receipt::{Receipt, verify};
use verifier::report::Verdict;

/// Members that differ from answer to answer.
fn steady(mut answer: Value) -> Value {
    let members = answer.as_object_mut().unwrap();
    members.remove("asOf");
    members.remove("receipt");
    if let Some(annotation) = members.get_mut("annotation") {
        annotation["createdAt"] = Value::Null;
        annotation["expiresAt"] = Value::Null;
        annotation["digest"] = Value::Null;
    }
    answer
}

#[tokio::test]
async fn the_answer_says_what_json_says_and_its_receipt_proves_it() {
    let server = shared(Setup::new).await;
    let (mut issuer, mut bank) = (server.party("issuer"), server.party("bank"));
    let license = draft(&natural()).issue(&mut issuer).await;
    let number = json!(license.draft.license.certificate_number);
    let body = |call: Call, change: &dyn Fn(&mut Value)| {
        let mut body: Value = serde_json::from_slice(&call.body).unwrap();
        change(&mut body);
        let bytes = serde_json::to_vec(&body).unwrap();
        call.with_body(bytes)
    };
    let fields = ["certificateNumber"];
    let calls = [
        license.verify(None),
        license.verify_envelope(),
        body(license.verify(None), &|body| body["expect"] = json!({"certificateNumber": number})),
        body(license.verify(None), &|body| body["expect"] = json!({"certificateNumber": "另一号"})),
        license.retrieve(&fields, None),
        body(license.retrieve(&fields, None), &|body| {
            body["mode"] = json!("face");
            body["fields"] = json!([]);
        }),
        body(license.retrieve(&fields, None), &|body| {
            body["mode"] = json!("envelope");
            body["fields"] = json!([]);
        }),
        body(license.retrieve(&fields, None), &|body| {
            body["mode"] = json!("copy");
            body["fields"] = json!([]);
        }),
    ];
    for call in calls {
        // The bank may check an envelope that it has; everything else is the issuer's own.
        let by_envelope = String::from_utf8_lossy(&call.body).contains("\"envelope\":");
        let party = if by_envelope { &mut bank } else { &mut issuer };
        let (in_json, _) = server.permitted(party, &call).await;
        let call = call.machine();
        let (reply, entry) = server.permitted(party, &call).await;
        assert_eq!(steady(decode(call.route, &reply.body)), steady(in_json.json));
        let check = |receipt: &Receipt, answer: &[u8]| {
            verify(receipt, Some(&reply.request), Some(answer), &server.trust, now_ms() / 1_000)
        };
        let report = check(&entry.receipt, &reply.body);
        assert_eq!((report.verdict, report.not_checked.len()), (Verdict::Valid, 0), "{:?}", report.reasons);
        // Any bit of what it says counts.
        let hashed = reply.hashed();
        for place in 0..hashed.len() {
            let mut bytes = hashed.clone();
            bytes[place] ^= 1;
            assert_eq!(check(&entry.receipt, &bytes).verdict, Verdict::Invalid, "{place}");
        }
    }
}

#[tokio::test]
async fn a_repeated_request_gets_the_same_bytes() {
    let server = shared(Setup::new).await;
    let mut issuer = server.party("issuer");
    let license = draft(&natural()).issue(&mut issuer).await;
    let call = license.retrieve(&["certificateNumber"], None).key("0123456789abcdef-machine").machine();
    let first = issuer.send(&call).await.expect(200);
    let again = issuer.send(&call).await.expect(200);
    assert_eq!((again.content_type.as_str(), again.hashed()), (fb::MEDIA_TYPE, first.hashed()));
    assert_eq!(again.receipt().index, first.receipt().index);
}

#[tokio::test]
async fn what_is_wrong_is_refused_as_in_json() {
    let server = shared(Setup::new).await;
    let (mut issuer, mut bank) = (server.party("issuer"), server.party("bank"));
    let license = draft(&natural()).issue(&mut issuer).await;
    let good = license.verify(None).machine();
    // Without a right nobody learns anything, in either form.
    server.refused(&mut bank, &good, Code::NotPermitted).await;
    let with = |name: &str, value: Value| {
        let mut body: Value = serde_json::from_slice(&license.verify(None).body).unwrap();
        body[name] = value;
        good.clone().with_body(encode(Route::Verify, &body))
    };
    let mut incomplete = use_context();
    incomplete["cause"] = json!(" ");
    let doubled = {
        let mut fbb = FlatBufferBuilder::new();
        let identifier = Some(fbb.create_string(&license.identifier));
        let license = Some(fb::LicenseName::create(
            &mut fbb,
            &fb::LicenseNameArgs { identifier, ..Default::default() },
        ));
        let expected = [field(&mut fbb, "name", "甲"), field(&mut fbb, "name", "乙")];
        let expect = Some(fbb.create_vector(&expected));
        let root = fb::VerifyRequest::create(
            &mut fbb,
            &fb::VerifyRequestArgs { license, expect, ..Default::default() },
        );
        fbb.finish(root, None);
        good.clone().with_body(fbb.finished_data().to_vec())
    };
    let retrieve = license.retrieve(&["certificateNumber"], None).machine();
    let nameless = json!({"license": {}, "use": use_context()});
    for (call, code) in [
        (with("use", Value::Null), Code::BadUseContext),
        (with("use", incomplete), Code::BadUseContext),
        (with("grant", json!("not hexadecimal")), Code::MalformedRequest),
        (with("license", json!({"identifier": "1.2.156.3005.2.x"})), Code::BadIdentifier),
        (good.clone().with_body(encode(Route::Verify, &nameless)), Code::MalformedRequest),
        (doubled, Code::DuplicateKey),
        // The other form's bytes, and another table's.
        (good.clone().with_body(license.verify(None).body), Code::MalformedRequest),
        (good.clone().with_body(Vec::new()), Code::MalformedRequest),
        (good.clone().with_body(vec![0xff; 64]), Code::MalformedRequest),
        (retrieve.clone().with_body(good.body.clone()), Code::MalformedRequest),
        // Other routes take JSON alone.
        (
            Call::raw(Route::Search, good.body.clone()).header("content-type", fb::MEDIA_TYPE),
            Code::WrongContentType,
        ),
    ] {
        server.refused(&mut issuer, &call, code).await;
    }
    // Bytes that were cut or changed are refused or mean something; nothing else happens.
    let mut party = server.party("issuer");
    let mut answers = 0;
    for place in (0..good.body.len()).step_by(7) {
        let mut changed = good.body.to_vec();
        changed[place] ^= 0x55;
        for body in [good.body[..place].to_vec(), changed] {
            let reply = party.send(&good.clone().with_body(body)).await;
            assert!(reply.status == 429 || server.entry(&reply).await.open.index > 0, "{}", reply.json);
            answers += 1;
        }
    }
    assert!(answers > 60);
}
