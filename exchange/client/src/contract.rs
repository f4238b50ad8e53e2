//! Tests that the client's types are the documents of the contract.
//!
//! Tests alone have this file. Nothing is written.

use std::cell::Cell;

use schemas::routes::Route;
use serde::de::value::Error;
use serde::de::{Deserialize, DeserializeOwned, Deserializer, Error as _, Visitor};
use serde::{Serialize, forward_to_deserialize_any};
use serde_json::Value;

use crate::*;

fn contract() -> Value {
    serde_json::from_str(schemas::OPENAPI).expect("JSON")
}

/// Reads an example as the client's type, and writes it again.
fn again<T: DeserializeOwned + Serialize>(example: &Value) -> Value {
    let read: T = serde_json::from_value(example.clone()).expect("the client's type");
    serde_json::to_value(&read).expect("JSON")
}

/// Reads a request as the client's type, and writes it again.
type Again = fn(&Value) -> Value;

/// The type of each route's requests that the client has a method for.
const REQUESTS: &[(Route, Again)] = &[
    (Route::Issue, again::<Issue>),
    (Route::Transition, again::<Transition>),
    (Route::Search, again::<Search>),
    (Route::IssuedList, again::<IssuedList>),
    (Route::Retrieve, again::<Retrieve>),
    (Route::Verify, again::<Verify>),
    (Route::GrantCreate, again::<GrantCreate>),
    (Route::GrantRevoke, again::<GrantRevoke>),
    (Route::GrantChange, again::<GrantChange>),
    (Route::GrantSearch, again::<GrantSearch>),
    (Route::CodeMint, again::<CodeMint>),
    (Route::CodeEnd, again::<CodeEnd>),
    (Route::CodeScan, again::<CodeScan>),
    (Route::Usage, again::<UsageSearch>),
    (Route::ParticipantAdd, again::<Register>),
    (Route::ParticipantChange, again::<Register>),
    (Route::ParticipantSuspend, again::<Suspend>),
    (Route::ParticipantList, again::<List>),
    (Route::Propose, again::<Propose>),
    (Route::Approve, again::<Approve>),
    (Route::ProposalList, again::<List>),
    (Route::PolicyShow, again::<ShowPolicies>),
    (Route::Trace, again::<Trace>),
    (Route::LogQuery, again::<LogQuery>),
    (Route::LinkMake, again::<LinkMake>),
    (Route::ResourceWrite, again::<ResourceWrite>),
    (Route::ResourceTransition, again::<ResourceTransition>),
    (Route::ResourceSearch, again::<ResourceSearch>),
    (Route::ApplicationMake, again::<Apply>),
    (Route::ApplicationTransition, again::<ApplicationTransition>),
    (Route::ApplicationList, again::<ApplicationSearch>),
    (Route::RecordsIngest, again::<RecordsIngest>),
    (Route::RecordsQuery, again::<RecordsQuery>),
    (Route::RecordsCall, again::<RecordsQuery>),
    (Route::RecordsFeed, again::<RecordsFeed>),
    (Route::ItemsImport, again::<ItemsImport>),
    (Route::ItemsSearch, again::<ItemsSearch>),
    (Route::ItemsMaterials, again::<ItemsMaterials>),
    (Route::Bundle, again::<Bundle>),
    (Route::MaterialKeep, again::<MaterialKeep>),
    (Route::ItemsDemanded, again::<ItemsDemanded>),
    (Route::RecordsCompare, again::<RecordsCompare>),
    (Route::RecordsMismatches, again::<MismatchSearch>),
    (Route::Evaluation, again::<Evaluation>),
    (Route::Evaluations, again::<Evaluations>),
    (Route::LinkEnd, again::<LinkEnd>),
];

#[test]
fn every_method_of_the_client_is_compared_with_the_contract() {
    let called: Vec<&str> = include_str!("client.rs")
        .split("self.call(Route::")
        .skip(1)
        .filter_map(|call| call.split(',').next())
        .collect();
    let compared: Vec<String> = REQUESTS.iter().map(|(route, _)| format!("{route:?}")).collect();
    assert_eq!(called, compared);
}

#[test]
fn every_example_of_the_contract_is_a_request_of_the_client() {
    let contract = contract();
    let mut read = 0;
    for (route, again) in REQUESTS {
        let path = route.path().expect("a path");
        let body = &contract["paths"][path]["post"]["requestBody"]["content"]["application/json"];
        let examples = body["examples"].as_object().expect("examples");
        assert!(!examples.is_empty(), "{path}: no example");
        for (name, example) in examples {
            assert_eq!(again(&example["value"]), example["value"], "{path}: {name}");
            read += 1;
        }
    }
    assert!(read >= 20, "{read} examples");
}

/// Keeps the members of a type, which it does not read.
struct Members<'a>(&'a Cell<&'static [&'static str]>);

impl<'de> Deserializer<'de> for Members<'_> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Error> {
        Err(Error::custom("no object"))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        members: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, Error> {
        self.0.set(members);
        Err(Error::custom("nothing is read"))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

fn members<'de, T: Deserialize<'de>>() -> Vec<&'static str> {
    let members = Cell::default();
    assert!(T::deserialize(Members(&members)).is_err());
    let mut members = members.get().to_vec();
    members.sort_unstable();
    members
}

/// Each member of a document, and only those, are known to the client.
#[test]
fn the_client_knows_every_member_of_every_document() {
    let contract = contract();
    for (document, known) in [
        ("Holder", members::<Holder>()),
        ("NamedHolder", members::<NamedHolder>()),
        ("UseContext", members::<UseContext>()),
        ("Draft", members::<Draft>()),
        ("ByIdentifier", members::<ByIdentifier>()),
        ("ByNumber", members::<ByNumber>()),
        ("ByEnvelope", members::<ByEnvelope>()),
        ("IssueRequest", members::<Issue>()),
        ("TransitionRequest", members::<Transition>()),
        ("SearchRequest", members::<Search>()),
        ("RetrieveRequest", members::<Retrieve>()),
        ("VerifyRequest", members::<Verify>()),
        ("GrantRequest", members::<GrantCreate>()),
        ("GrantRevokeRequest", members::<GrantRevoke>()),
        ("GrantChangeRequest", members::<GrantChange>()),
        ("Participant", members::<Participant>()),
        ("Limit", members::<Limit>()),
        ("Limit/properties/rate", members::<Rate>()),
        ("CodeMintRequest", members::<CodeMint>()),
        ("CodeMintAnswer", members::<Minted>()),
        ("CodeEndRequest", members::<CodeEnd>()),
        ("CodeEndAnswer", members::<CodeEnded>()),
        ("CodeScanRequest", members::<CodeScan>()),
        ("CodeScanAnswer", members::<Scanned>()),
        ("UsageRequest", members::<UsageSearch>()),
        ("UsageAnswer", members::<UsagePage>()),
        ("UsageAnswer/properties/limits/items", members::<UsedLimit>()),
        ("UsageAnswer/properties/limits/items/properties/rate", members::<UsedRate>()),
        ("UsageAnswer/properties/uses/items", members::<OwnUse>()),
        ("Counted", members::<Counted>()),
        ("DelayClass", members::<DelayClass>()),
        ("SigningKey", members::<SigningKey>()),
        ("ParticipantRequest", members::<Register>()),
        ("ParticipantSuspendRequest", members::<Suspend>()),
        ("ProposalRequest", members::<Propose>()),
        ("ApproveRequest", members::<Approve>()),
        ("TraceRequest", members::<Trace>()),
        ("LogQueryRequest", members::<LogQuery>()),
        ("LinkRequest", members::<LinkMake>()),
        ("LinkEndRequest", members::<LinkEnd>()),
        ("ListRequest", members::<List>()),
        ("GrantSearchRequest", members::<GrantSearch>()),
        ("IssuedListRequest", members::<IssuedList>()),
        ("IssueAnswer", members::<Issued>()),
        ("TransitionAnswer", members::<Transitioned>()),
        ("SearchAnswer", members::<Found>()),
        ("SearchAnswer/properties/licenses/items", members::<FoundLicense>()),
        ("RetrieveAnswer", members::<Retrieved>()),
        ("RetrieveAnswer/properties/annotation", members::<Annotation>()),
        ("VerifyAnswer", members::<Verified>()),
        ("GrantAnswer", members::<Granted>()),
        ("GrantSearchAnswer", members::<GrantPage>()),
        ("GrantSearchAnswer/properties/grants/items", members::<FoundGrant>()),
        ("IssuedListAnswer", members::<IssuedPage>()),
        ("IssuedListAnswer/properties/licenses/items", members::<IssuedLicense>()),
        ("ParticipantAnswer", members::<Registered>()),
        ("ParticipantListAnswer", members::<ParticipantPage>()),
        ("Registration", members::<Registration>()),
        ("ProposalAnswer", members::<Proposed>()),
        ("ProposalListAnswer", members::<ProposalPage>()),
        ("ProposalListAnswer/properties/proposals/items", members::<FoundProposal>()),
        ("TraceAnswer", members::<TracePage>()),
        ("LogQueryAnswer", members::<AuditPage>()),
        ("LinkAnswer", members::<Linked>()),
        ("Calendar", members::<schemas::workday::Calendar>()),
        ("Resource", members::<schemas::resource::Resource>()),
        ("ResourceWriteRequest", members::<ResourceWrite>()),
        ("ResourceTransitionRequest", members::<ResourceTransition>()),
        ("ResourceSearchRequest", members::<ResourceSearch>()),
        ("ResourceAnswer", members::<ResourceWritten>()),
        ("ResourceSearchAnswer", members::<ResourcePage>()),
        ("ResourceSearchAnswer/properties/resources/items", members::<FoundResource>()),
        ("Quality", members::<Quality>()),
        ("Step", members::<Step>()),
        ("Scope", members::<Scope>()),
        ("Clock", members::<Running>()),
        ("RecordsIngestRequest", members::<RecordsIngest>()),
        ("RecordsIngestAnswer", members::<RecordsIngested>()),
        ("RecordsIngestAnswer/properties/rejects/items", members::<RejectedRow>()),
        ("RecordsQueryRequest", members::<RecordsQuery>()),
        ("RecordsQueryAnswer", members::<QueriedRecord>()),
        ("RecordsQueryAnswer/properties/approval", members::<UsedApproval>()),
        ("RecordsCompareRequest", members::<RecordsCompare>()),
        ("RecordsCompareAnswer", members::<Comparison>()),
        ("RecordsCompareAnswer/properties/fields/items", members::<ComparedField>()),
        ("RecordsMismatchesRequest", members::<MismatchSearch>()),
        ("RecordsMismatchesAnswer", members::<MismatchPage>()),
        ("RecordsMismatchesAnswer/properties/mismatches/items", members::<FoundMismatch>()),
        ("RecordsFeedRequest", members::<RecordsFeed>()),
        ("RecordsFeedAnswer", members::<FeedPage>()),
        ("RecordsFeedAnswer/properties/changes/items", members::<FedRow>()),
        ("RecordsFeedAnswer/properties/approval", members::<UsedApproval>()),
        ("ApplicationRequest", members::<Apply>()),
        ("ApplicationTransitionRequest", members::<ApplicationTransition>()),
        ("ApplicationListRequest", members::<ApplicationSearch>()),
        ("ApplicationAnswer", members::<Applied>()),
        ("ApplicationListAnswer", members::<ApplicationPage>()),
        ("ApplicationListAnswer/properties/applications/items", members::<FoundApplication>()),
        ("ItemsImportRequest", members::<ItemsImport>()),
        ("ItemsImportAnswer", members::<ItemsImported>()),
        ("ItemsSearchRequest", members::<ItemsSearch>()),
        ("ItemsSearchAnswer", members::<ItemsPage>()),
        ("Item", members::<FoundItem>()),
        ("Material", members::<FoundMaterial>()),
        ("Element", members::<FoundElement>()),
        ("Mapping", members::<FoundMapping>()),
        ("Demands", members::<FoundDemands>()),
        ("Demands/properties/stages/items", members::<DemandStage>()),
        ("Demand", members::<Demand>()),
        ("IntendedUse", members::<FoundUse>()),
        ("Beyond", members::<FoundBeyond>()),
        ("OrphanField", members::<OrphanField>()),
        ("ItemsMaterialsRequest", members::<ItemsMaterials>()),
        ("ItemsMaterialsAnswer", members::<ItemMaterials>()),
        ("ItemMaterial", members::<ItemMaterial>()),
        ("HeldLicense", members::<HeldLicense>()),
        ("KeptMaterial", members::<KeptMaterial>()),
        ("MaterialKeepRequest", members::<MaterialKeep>()),
        ("MaterialKeepAnswer", members::<MaterialKept>()),
        ("ItemsDemandedRequest", members::<ItemsDemanded>()),
        ("ItemsDemandedAnswer", members::<DemandsCounted>()),
        ("EvaluationRequest", members::<Evaluation>()),
        ("EvaluationsRequest", members::<Evaluations>()),
        ("EvaluationAnswer", members::<Evaluated>()),
        ("EvaluationsAnswer", members::<EvaluatedMany>()),
        ("Fault", members::<Fault>()),
    ] {
        let properties = contract.pointer(&format!("/components/schemas/{document}/properties"));
        let properties = properties.and_then(Value::as_object).expect(document);
        // The receipt is cut out before an answer is read.
        let mut all: Vec<&str> =
            properties.keys().map(String::as_str).filter(|name| *name != "receipt").collect();
        all.sort_unstable();
        assert_eq!(known, all, "{document}");
    }
}

#[test]
fn nothing_of_a_person_is_in_debug_output() {
    let body = &contract()["paths"]["/v1/verify"]["post"]["requestBody"]["content"]["application/json"];
    let verify: Verify =
        serde_json::from_value(body["examples"]["number"]["value"].clone()).expect("a request");
    let shown = format!("{verify:?}");
    let License::Number(ByNumber { certificate_number, holder, .. }) = &verify.license else {
        unreachable!("the example is by number")
    };
    for text in [certificate_number, &holder.number, &verify.context.user_name, &verify.context.cause] {
        assert!(!shown.contains(text.as_str()), "{shown}");
    }
}
