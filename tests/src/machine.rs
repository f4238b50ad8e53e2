//! Requests in JSON as machine peers send them, and their answers as JSON; written from `schemas/fbs/machine.fbs`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use flatbuffers::{FlatBufferBuilder, WIPOffset};
use schemas::machine as fb;
use schemas::routes::Route;
use serde_json::{Map, Value, json};

use crate::Call;

impl Call {
    /// The same request as a machine peer sends it: of the routes verify and retrieve.
    #[must_use]
    pub fn machine(self) -> Self {
        let body: Value = serde_json::from_slice(&self.body).unwrap();
        let body = encode(self.route, &body);
        self.header("content-type", fb::MEDIA_TYPE).with_body(body)
    }

    /// The media type that its answer must have when it is permitted.
    pub fn media_type(&self) -> &str {
        let sent = self.headers.iter().find(|(name, _)| name == "content-type");
        sent.map(|(_, value)| value.as_str())
            .filter(|value| *value == fb::MEDIA_TYPE)
            .unwrap_or("application/json")
    }
}

/// A request in JSON, in FlatBuffers.
pub fn encode(route: Route, body: &Value) -> Vec<u8> {
    let mut fbb = FlatBufferBuilder::new();
    let license = Some(license(&mut fbb, &body["license"]));
    let holder = holder(&mut fbb, &body["holder"]);
    let grant = text(&mut fbb, &body["grant"]);
    let use_ = context(&mut fbb, &body["use"]);
    let assertion = text(&mut fbb, &body["assertion"]);
    if route == Route::Retrieve {
        let mode = text(&mut fbb, &body["mode"]);
        let fields = body["fields"].as_array().map(|names| {
            let names: Vec<_> = names.iter().map(|name| fbb.create_string(name.as_str().unwrap())).collect();
            fbb.create_vector(&names)
        });
        let include_ended = body["includeEnded"].as_bool().unwrap_or(false);
        let args =
            fb::RetrieveRequestArgs { license, mode, fields, holder, grant, use_, include_ended, assertion };
        let root = fb::RetrieveRequest::create(&mut fbb, &args);
        fbb.finish(root, None);
    } else {
        let expect = body["expect"].as_object().map(|expect| {
            let fields: Vec<_> =
                expect.iter().map(|(name, value)| field(&mut fbb, name, value.as_str().unwrap())).collect();
            fbb.create_vector(&fields)
        });
        let args = fb::VerifyRequestArgs { license, expect, holder, grant, use_, assertion };
        let root = fb::VerifyRequest::create(&mut fbb, &args);
        fbb.finish(root, None);
    }
    fbb.finished_data().to_vec()
}

/// One expected field.
pub fn field<'a>(fbb: &mut FlatBufferBuilder<'a>, name: &str, value: &str) -> WIPOffset<fb::Field<'a>> {
    let (name, value) = (Some(fbb.create_string(name)), Some(fbb.create_string(value)));
    fb::Field::create(fbb, &fb::FieldArgs { name, value })
}

fn text<'a>(fbb: &mut FlatBufferBuilder<'a>, value: &Value) -> Option<WIPOffset<&'a str>> {
    value.as_str().map(|text| fbb.create_string(text))
}

fn holder<'a>(fbb: &mut FlatBufferBuilder<'a>, value: &Value) -> Option<WIPOffset<fb::Holder<'a>>> {
    value.as_object()?;
    let (type_code, number) = (text(fbb, &value["typeCode"]), text(fbb, &value["number"]));
    let as_registered = value["asRegistered"].as_bool().unwrap_or(false);
    Some(fb::Holder::create(fbb, &fb::HolderArgs { type_code, number, as_registered }))
}

fn license<'a>(fbb: &mut FlatBufferBuilder<'a>, value: &Value) -> WIPOffset<fb::LicenseName<'a>> {
    let args = fb::LicenseNameArgs {
        identifier: text(fbb, &value["identifier"]),
        type_code: text(fbb, &value["typeCode"]),
        certificate_number: text(fbb, &value["certificateNumber"]),
        holder: holder(fbb, &value["holder"]),
        envelope: value["envelope"].as_str().map(|text| {
            let envelope = BASE64.decode(text).unwrap();
            fbb.create_vector(&envelope)
        }),
    };
    fb::LicenseName::create(fbb, &args)
}

fn context<'a>(fbb: &mut FlatBufferBuilder<'a>, value: &Value) -> Option<WIPOffset<fb::UseContext<'a>>> {
    value.as_object()?;
    let args = fb::UseContextArgs {
        user_name: text(fbb, &value["userName"]),
        item_code: text(fbb, &value["itemCode"]),
        item_name: text(fbb, &value["itemName"]),
        business_code: text(fbb, &value["businessCode"]),
        cause: text(fbb, &value["cause"]),
        stage: text(fbb, &value["stage"]),
        delay: text(fbb, &value["delay"]),
        purpose: text(fbb, &value["purpose"]),
        scenario: text(fbb, &value["scenario"]),
        assertion: text(fbb, &value["assertion"]),
        acting_for: text(fbb, &value["actingFor"]),
    };
    Some(fb::UseContext::create(fbb, &args))
}

/// The answer's body, without its receipt, as it is in JSON.
pub fn decode(route: Route, answer: &[u8]) -> Value {
    let answer = fb::root_as_answer(answer).unwrap();
    let body = answer.body().bytes();
    let mut json = Map::new();
    let mut put = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            json.insert(name.to_owned(), value);
        }
    };
    if route == Route::Retrieve {
        let read = flatbuffers::root::<fb::RetrieveAnswer<'_>>(body).unwrap();
        put("identifier", Some(json!(read.identifier())));
        put("mode", Some(json!(read.mode())));
        put("state", Some(json!(read.state())));
        put("inForce", Some(json!(read.in_force())));
        let fields = |fields: flatbuffers::Vector<'_, flatbuffers::ForwardsUOffset<fb::Field<'_>>>| {
            Value::Object(
                fields.iter().map(|field| (field.name().to_owned(), json!(field.value()))).collect(),
            )
        };
        put("fields", read.fields().map(fields));
        put("envelope", read.envelope().map(|bytes| json!(BASE64.encode(bytes.bytes()))));
        put(
            "annotation",
            read.annotation().map(|annotation| {
                let mut said = json!({
                    "creator": annotation.creator(), "creatorName": annotation.creator_name(),
                    "cause": annotation.cause(), "itemName": annotation.item_name(),
                    "businessCode": annotation.business_code(), "createdAt": annotation.created_at(),
                    "expiresAt": annotation.expires_at(), "watermark": annotation.watermark(),
                    "originalDigest": BASE64.encode(annotation.original_digest().0), "digest": BASE64.encode(annotation.digest().0),
                });
                if let Some(purpose) = annotation.purpose() {
                    said["purpose"] = json!(purpose);
                }
                said
            }),
        );
        put("masked", read.masked().map(|names| json!(names.iter().collect::<Vec<_>>())));
        put("asOf", Some(json!(read.as_of())));
        put("sameNumber", read.same_number().map(|count| json!(count)));
    } else {
        let read = flatbuffers::root::<fb::VerifyAnswer<'_>>(body).unwrap();
        put("verdict", Some(json!(read.verdict())));
        put("state", read.state().map(|state| json!(state)));
        put("reasons", Some(json!(read.reasons().iter().collect::<Vec<_>>())));
        put("matches", read.matches().map(|matches| json!(matches)));
        put("asOf", Some(json!(read.as_of())));
        put("sameNumber", read.same_number().map(|count| json!(count)));
    }
    Value::Object(json)
}
