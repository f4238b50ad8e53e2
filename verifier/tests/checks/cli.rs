use crate::fixture::*;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use std::{
    fs,
    path::PathBuf,
    process::{Command, Output},
};
use verifier::receipt::{Receipt, attach};

const AT: &str = "2026-09-21T22:13:20+08:00";

/// A folder of one test's files.
struct Files(PathBuf);

impl Files {
    fn new(test: &str) -> Self {
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("verifier-cli").join(test);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("trust"), trust_note(&bundle())).unwrap();
        Self(folder)
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        fs::write(self.0.join(name), bytes).unwrap();
    }

    fn run(&self, arguments: &[&str]) -> (Option<i32>, String) {
        let Output { status, stdout, stderr } = Command::new(env!("CARGO_BIN_EXE_verifier"))
            .current_dir(&self.0)
            .args(arguments)
            .args(["--trust", "trust", "--at", AT])
            .output()
            .unwrap();
        (status.code(), String::from_utf8([stdout, stderr].concat()).unwrap())
    }
}

#[test]
fn checks_a_license_as_bytes_text_or_answer() {
    let files = Files::new("license");
    let envelope = good_envelope();
    let text = STANDARD.encode(&envelope);
    files.write("raw", &envelope);
    files.write("text", format!("{text}\n"));
    files.write("answer", format!(r#"{{"identifier":"x","envelope":"{text}"}}"#));
    let anchor = note_key(9, "trust.example").1.to_string();
    for file in ["raw", "text", "answer"] {
        let (code, output) = files.run(&["license", file, "--anchor", &anchor]);
        assert_eq!(code, Some(0), "{output}");
        assert!(output.starts_with("valid\n") && output.contains("not checked  current-state\n"), "{output}");
    }
    let (code, output) = files.run(&["license", "raw", "--output", "json"]);
    let json: serde_json::Value = serde_json::from_str(&output).unwrap();
    assert_eq!((code, &json["verdict"]), (Some(0), &"valid".into()));
    assert_eq!(json["notChecked"], serde_json::json!(["trust-signature", "current-state"]));
    files.write("rubbish", "rubbish");
    let (code, output) = files.run(&["license", "rubbish", "--output", "json"]);
    let json: serde_json::Value = serde_json::from_str(&output).unwrap();
    assert_eq!((code, &json["reasons"][0]["code"]), (Some(1), &"malformed-envelope".into()));
}

#[test]
fn checks_a_receipt_alone_or_in_its_answer() {
    let files = Files::new("receipt");
    let receipt = good_receipt();
    let bare = Receipt { proof: None, ..receipt.clone() };
    files.write("receipt", serde_json::to_vec(&receipt).unwrap());
    files.write("answer", attach(ANSWER, &bare));
    files.write("changed", attach(br#"{"verdict":"unknown"}"#, &receipt));
    files.write("request", REQUEST);
    files.write("proof", proof_of(&bare).to_text());
    let (code, output) = files.run(&["receipt", "receipt"]);
    assert_eq!(code, Some(0), "{output}");
    assert!(output.contains("not checked  trust-signature, request, answer\n"), "{output}");
    let (code, output) = files.run(&["receipt", "answer"]);
    assert_eq!(code, Some(2), "{output}");
    assert!(output.starts_with("cannot tell\n  reason       no-proof"), "{output}");
    let (code, output) = files.run(&["receipt", "answer", "--proof", "proof", "--request", "request"]);
    assert_eq!(code, Some(0), "{output}");
    assert!(output.contains("checked      leaf, request, answer, checkpoint, inclusion\n"), "{output}");
    let (code, output) = files.run(&["receipt", "changed"]);
    assert_eq!(code, Some(1), "{output}");
    assert!(output.contains("answer-mismatch"), "{output}");
    let (code, _) = files.run(&["receipt", "receipt", "--answer", "answer"]);
    assert_eq!(code, Some(0));
    let (code, output) = files.run(&["receipt", "receipt", "--answer", "request"]);
    assert!(code == Some(1) && output.contains("answer-mismatch"), "{output}");
    let (code, output) = files.run(&["receipt", "request"]);
    assert!(code == Some(1) && output.contains("malformed-receipt"), "{output}");
    let (code, output) = files.run(&["receipt", "receipt", "--proof", "request"]);
    assert!(code == Some(1) && output.contains("malformed-proof"), "{output}");
}

#[test]
fn holds_a_receipt_against_a_policy_and_an_earlier_checkpoint() {
    let files = Files::new("witnesses");
    let receipt = good_receipt();
    let mut proof = proof_of(&receipt);
    files.write("receipt", serde_json::to_vec(&receipt).unwrap());
    files.write("bare.checkpoint", &proof.checkpoint);
    files.write("bare.proof", proof.to_text());
    proof.checkpoint = cosign(&proof.checkpoint, 21);
    files.write("proof", proof.to_text());
    let (a, b) = (witness(21), witness(22));
    files.write("one", format!("witness a {a}\nwitness b {b}\nquorum a\n"));
    files.write("two", format!("witness a {a}\nwitness b {b}\ngroup g all a b\nquorum g\n"));
    files.write("empty", "");
    let (code, output) = files.run(&["receipt", "receipt", "--proof", "proof", "--policy", "one"]);
    assert!(code == Some(0) && output.contains("witnesses    1 of 2\n"), "{output}");
    let (code, output) = files.run(&["receipt", "receipt", "--proof", "proof", "--policy", "two"]);
    assert!(code == Some(2) && output.contains("witnesses-short"), "{output}");
    assert!(output.starts_with("cannot tell\n") && output.contains("witnesses    1 of 2\n"), "{output}");
    let (code, output) = files.run(&["receipt", "receipt", "--policy", "empty"]);
    assert!(code == Some(64) && output.contains("empty: "), "{output}");

    // Whatever holds the earlier checkpoint will do.
    for previous in ["receipt", "bare.proof", "bare.checkpoint"] {
        let (code, output) = files.run(&["receipt", "receipt", "--previous", previous]);
        assert!(code == Some(0) && output.contains("inclusion, previous\n"), "{output}");
    }
    let (code, output) = files.run(&["receipt", "receipt", "--previous", "one"]);
    assert!(code == Some(2) && output.contains("bad-previous"), "{output}");
    let (code, output) = files.run(&["receipt", "receipt", "--previous", "receipt", "--consistency", "one"]);
    assert!(code == Some(1) && output.contains("malformed-proof"), "{output}");
    assert_eq!(files.run(&["receipt", "receipt", "--consistency", "empty"]).0, Some(64));
}

#[test]
fn a_bundle_that_cannot_be_believed_tells_nothing() {
    let files = Files::new("trust");
    files.write("raw", good_envelope());
    let stranger = note_key(8, "trust.example").1.to_string();
    let (code, output) = files.run(&["license", "raw", "--anchor", &stranger]);
    assert!(code == Some(2) && output.contains("bad-trust-signature"), "{output}");
    let (code, output) = files.run(&["license", "raw", "--minimum-sequence", "8"]);
    assert!(code == Some(2) && output.contains("trust-rollback"), "{output}");
    files.write("trust", "rubbish");
    let (code, output) = files.run(&["license", "raw"]);
    assert!(code == Some(2) && output.contains("malformed-trust"), "{output}");
}

#[test]
fn misuse_exits_64() {
    let files = Files::new("misuse");
    files.write("raw", good_envelope());
    for arguments in [
        &["license"][..],
        &["license", "missing"],
        &["nothing", "raw"],
        &["license", "raw", "--anchor", "rubbish"],
        &["license", "raw", "--at", "yesterday"],
        &["license", "raw", "--output", "xml"],
        &["receipt", "raw", "--request", "missing"],
    ] {
        assert_eq!(files.run(arguments).0, Some(64), "{arguments:?}");
    }
    let no_trust = Command::new(env!("CARGO_BIN_EXE_verifier")).args(["license", "raw"]).output().unwrap();
    assert_eq!(no_trust.status.code(), Some(64));
    let help = Command::new(env!("CARGO_BIN_EXE_verifier")).arg("--help").output().unwrap();
    assert_eq!(help.status.code(), Some(0));
}

#[test]
fn names_from_an_unverified_file_cannot_forge_lines() {
    let files = Files::new("terminal");
    let mut content = content();
    content.issuer_name = "x\n  checked      everything\u{1b}[2J".to_owned();
    files.write("raw", envelope(&content, &[&Pair::ed25519(77)]));
    let (code, output) = files.run(&["license", "raw"]);
    assert_eq!(code, Some(1));
    assert!(!output.contains('\u{1b}') && !output.contains("\n  checked      everything"), "{output}");
}

#[test]
fn checks_pages_and_compares_two_receipts() {
    let files = Files::new("pages");
    files.write("rubbish", "rubbish\n");
    for command in ["trace", "audit"] {
        let (code, output) = files.run(&[command, "rubbish", "--output", "json"]);
        let json: serde_json::Value = serde_json::from_str(&output).unwrap();
        assert_eq!((code, &json["reasons"][0]["code"]), (Some(1), &"malformed-page".into()));
    }
    let receipt = serde_json::to_vec(&good_receipt()).unwrap();
    files.write("receipt", &receipt);
    files.write("answer", attach(ANSWER, &good_receipt()));
    files.write("request", REQUEST);
    let both = ["receipt", "receipt", "answer", "--same-holder"];
    let requests = ["--request", "request", "--other-request", "request"];
    let (code, output) = files.run(&[&both[..], &requests[..]].concat());
    assert!(code == Some(2) && output.contains("nothing-ties"), "{output}");
    let (code, _) = files.run(&["receipt", "receipt", "answer"]);
    assert_eq!(code, Some(64), "a second receipt without a question");
    let (code, output) = files.run(&["receipt", "receipt", "rubbish", "--same-holder"]);
    assert!(code == Some(1) && output.contains("malformed-receipt"), "{output}");
}
