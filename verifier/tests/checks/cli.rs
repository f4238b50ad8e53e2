use crate::fixture::*;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use schemas::codes::Code;
use std::{
    fs,
    path::PathBuf,
    process::{Command, Output, Stdio},
    time::Duration,
};
use verifier::{
    Hash,
    checkpoint::Checkpoint,
    leaf::{LeafKind, Open, leaf_bytes},
    license::LicenseContent,
    merkle::{BatchTree, leaf_hash},
    receipt::{Receipt, attach},
    sha256,
    trust::{TrustBundle, encode_text},
};

const AT: &str = "2026-09-21T22:13:20+08:00";

/// A folder of one test's files, without those of an earlier run.
struct Files(PathBuf);

impl Files {
    fn new(test: &str) -> Self {
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("verifier-cli").join(test);
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("trust"), trust_note(&bundle())).unwrap();
        Self(folder)
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        fs::write(self.0.join(name), bytes).unwrap();
    }

    fn run(&self, arguments: &[&str]) -> (Option<i32>, String) {
        let anchor = note_key(9, "trust.example").1.to_string();
        self.run_without_anchor(&[arguments, &["--anchor", &anchor]].concat())
    }

    fn run_without_anchor(&self, arguments: &[&str]) -> (Option<i32>, String) {
        let Output { status, stdout, stderr } = Command::new(env!("CARGO_BIN_EXE_verifier"))
            .current_dir(&self.0)
            .args(["--at", AT])
            .args(if arguments.contains(&"--trust") { &[][..] } else { &["--trust", "trust"] })
            .args(arguments)
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
    for file in ["raw", "text", "answer"] {
        let (code, output) = files.run(&["license", file]);
        assert_eq!(code, Some(0), "{output}");
        assert!(output.starts_with("signature genuine; state today NOT checked\n"), "{output}");
        assert!(output.contains("not checked  current-state\n"), "{output}");
    }
    let (code, output) = files.run(&["license", "raw", "--output", "json"]);
    let json: serde_json::Value = serde_json::from_str(&output).unwrap();
    assert_eq!((code, &json["verdict"]), (Some(0), &"valid".into()));
    assert_eq!(json["says"], "signature genuine; state today NOT checked");
    assert_eq!(json["notChecked"], serde_json::json!(["current-state"]));
    files.write("twice", format!(r#"{{"envelope":"{text}","envelope":"AAAA"}}"#));
    let (code, output) = files.run(&["license", "twice"]);
    assert!(code == Some(1) && output.contains("duplicate-member"), "{output}");
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
    assert!(output.contains("not checked  request, answer\n"), "{output}");
    let (code, output) = files.run(&["receipt", "answer"]);
    assert_eq!(code, Some(2), "{output}");
    assert!(output.starts_with("cannot tell: no-proof\n  reason       no-proof"), "{output}");
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
    assert!(
        output.starts_with("cannot tell: witnesses-short\n") && output.contains("witnesses    1 of 2\n"),
        "{output}"
    );
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
    let (code, output) = files.run_without_anchor(&["license", "raw", "--anchor", &stranger]);
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
        &["license", "raw", "--trust-on-first-use", "beside-an-anchor"],
        &["log", "raw"],
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

#[test]
fn without_an_anchor_nothing_that_rests_on_the_bundle_can_be_told() {
    let files = Files::new("no-anchor");
    files.write("raw", good_envelope());
    files.write("receipt", serde_json::to_vec(&good_receipt()).unwrap());
    // A bundle of a forger's own making, with keys of the forger's.
    let mut forged = bundle();
    forged.issuers[0].keys = vec![Pair::ed25519(77).trust_key()];
    files.write("forged", sign_note(66, "trust.example", &encode_text(&forged)));
    files.write("made", envelope(&content(), &[&Pair::ed25519(77)]));
    for (command, file, trust) in
        [("license", "raw", "trust"), ("receipt", "receipt", "trust"), ("license", "made", "forged")]
    {
        let (code, output) = files.run_without_anchor(&[command, file, "--trust", trust]);
        assert_eq!(code, Some(2), "{output}");
        assert!(output.starts_with("cannot tell: no-anchor\n"), "{output}");
    }
    // It cannot speak against anybody either; what is broken in itself is.
    let (code, output) = files.run_without_anchor(&["license", "raw", "--trust", "forged"]);
    assert!(code == Some(2) && output.contains("unknown-signer"), "{output}");
    files.write("broken", &good_envelope()[1..]);
    assert_eq!(files.run_without_anchor(&["license", "broken", "--trust", "trust"]).0, Some(1));
}

#[test]
fn a_pin_takes_the_first_authority_and_no_other() {
    let files = Files::new("pin");
    files.write("raw", good_envelope());
    let run = |trust: &str| {
        files.run_without_anchor(&["license", "raw", "--trust-on-first-use", "pin", "--trust", trust])
    };
    // What its own authority did not sign is never pinned.
    let mut mine = bundle();
    mine.authority = None;
    files.write("nameless", trust_note(&mine));
    files.write("other", sign_note(66, "trust.example", &encode_text(&bundle())));
    for (trust, reason) in [("nameless", "no-anchor"), ("other", "bad-trust-signature")] {
        let (code, output) = run(trust);
        assert!(code == Some(2) && output.starts_with(&format!("cannot tell: {reason}\n")), "{output}");
        assert!(!files.0.join("pin").exists());
    }
    let (code, output) = run("trust");
    assert_eq!(code, Some(0), "{output}");
    assert!(output.starts_with("FIRST USE: trust authority trust.example believed unseen"), "{output}");
    assert!(
        output.lines().next().unwrap().ends_with("; signature genuine; state today NOT checked"),
        "{output}"
    );
    let (code, output) = run("trust");
    assert!(code == Some(0) && output.starts_with("signature genuine"), "{output}");
    // Another authority, and an older bundle of the same.
    let mut forged = bundle();
    forged.authority = Some(note_key(66, "trust.example").1);
    files.write("forged", sign_note(66, "trust.example", &encode_text(&forged)));
    files.write("older", trust_note(&TrustBundle { sequence: 6, ..bundle() }));
    for (trust, reason) in [("forged", "bad-trust-signature"), ("older", "trust-rollback")] {
        let (code, output) = run(trust);
        assert!(
            code == Some(2) && output.contains(reason) && output.contains("is pinned in pin"),
            "{output}"
        );
    }
    files.write("newer", trust_note(&TrustBundle { sequence: 9, ..bundle() }));
    assert_eq!(run("newer").0, Some(0));
    assert_eq!(run("trust").0, Some(2), "what was seen since is remembered");
    files.write("pin", "rubbish");
    assert_eq!(run("trust").0, Some(64));
}

#[test]
fn a_pin_that_another_run_writes_meanwhile_counts() {
    let files = Files::new("pin-race");
    files.write("raw", good_envelope());
    let lock = fs::File::create(files.0.join("pin.lock")).unwrap();
    lock.lock().unwrap();
    let mut waiting = Command::new(env!("CARGO_BIN_EXE_verifier"))
        .current_dir(&files.0)
        .args(["license", "raw", "--trust", "trust", "--trust-on-first-use", "pin", "--at", AT])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // Long enough for the run to have found no pin; if it has not, it finds the one of the other run.
    std::thread::sleep(Duration::from_millis(300));
    assert!(waiting.try_wait().unwrap().is_none(), "a first use does not wait");
    let pin = format!("{}\nsequence 3\n", note_key(66, "trust.example").1);
    files.write("pin", &pin);
    drop(lock);
    let output = waiting.wait_with_output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.code() == Some(2) && said.contains("bad-trust-signature"), "{said}");
    assert_eq!(fs::read_to_string(files.0.join("pin")).unwrap(), pin);
}

#[test]
fn the_first_line_says_what_a_receipt_shows() {
    let files = Files::new("headline");
    files.write("permit", attach(ANSWER, &good_receipt()));
    let denial = Open { decision: 2, code: Code::NotPermitted.number(), ..open() };
    let refused = receipt_of(denial.encode(), INDEX);
    let proof = Some(proof_of(&refused).to_text());
    files.write("denial", serde_json::to_vec(&Receipt { proof, ..refused }).unwrap());
    for (file, says) in [
        ("permit", "receipt genuine: the request was permitted; the license was then valid\n"),
        ("denial", "receipt genuine: the request was REFUSED (not-permitted)\n"),
    ] {
        let (code, output) = files.run(&["receipt", file]);
        assert!(code == Some(0) && output.starts_with(says), "{output}");
    }
    // The content comes only when it is asked for.
    files.write("raw", good_envelope());
    let holder = "TEST-HOLDER-1";
    for output in ["text", "json"] {
        let (_, without) = files.run(&["license", "raw", "--output", output]);
        let (_, shown) = files.run(&["license", "raw", "--output", output, "--show"]);
        assert!(!without.contains(holder) && shown.contains(holder), "{shown}");
    }
    let (_, shown) = files.run(&["receipt", "permit", "--show"]);
    assert!(shown.contains("\"verdict\": \"valid\""), "{shown}");
    // A body that nobody known signed is not shown.
    files.write("made", envelope(&content(), &[&Pair::ed25519(77)]));
    let (_, shown) = files.run(&["license", "made", "--show"]);
    assert!(!shown.contains(holder), "{shown}");
    // Nor is anything that a bundle of nobody known vouches for.
    for (command, file, content) in
        [("license", "raw", holder), ("receipt", "permit", "\"verdict\": \"valid\"")]
    {
        let (code, shown) = files.run_without_anchor(&[command, file, "--show", "--trust", "trust"]);
        assert!(code == Some(2) && !shown.contains(content), "{shown}");
        assert!(shown.contains("the content is not shown"), "{shown}");
    }
}

#[test]
fn what_editors_and_printers_do_to_a_file_is_named() {
    let files = Files::new("tolerant");
    let answer = attach(ANSWER, &good_receipt());
    let pretty = serde_json::to_string_pretty(&serde_json::from_slice::<serde_json::Value>(&answer).unwrap());
    let pretty = pretty.unwrap();
    files.write("request", REQUEST);
    files.write("pretty", &pretty);
    for arguments in [&["receipt", "pretty"][..], &["receipt", "receipt", "--answer", "pretty"]] {
        files.write("receipt", serde_json::to_vec(&good_receipt()).unwrap());
        let (code, output) = files.run(arguments);
        assert_eq!(code, Some(2), "{output}");
        assert!(output.starts_with("cannot tell: reformatted\n"), "{output}");
        assert!(output.contains("its bytes as received are needed"), "{output}");
    }
    let with =
        |before: &str, bytes: &[u8], behind: &str| [before.as_bytes(), bytes, behind.as_bytes()].concat();
    let envelope = good_envelope();
    for (before, behind, said) in [
        ("", "\n", "the final newline of the"),
        ("", "\r\n", "the final newline of the"),
        ("\u{feff}", "", "the byte order mark of the"),
        ("\u{feff}", "\n", "the byte order mark and the final newline of the"),
    ] {
        files.write("answer", with(before, &answer, behind));
        files.write("bare", with("", ANSWER, ""));
        files.write("changed", with(before, REQUEST, behind));
        files.write("raw", with(before, &envelope, behind));
        for arguments in [
            &["receipt", "answer"][..],
            &["receipt", "receipt", "--answer", "bare", "--request", "changed"],
            &["license", "raw"],
        ] {
            let (code, output) = files.run(arguments);
            assert!(code == Some(0) && output.contains(said), "{arguments:?}: {output}");
        }
        // Another change beside it stays a change.
        files.write("answer", with(before, &[b" ", &answer[..]].concat(), behind));
        files.write("raw", with(before, &envelope, &format!("{behind} ")));
        assert_eq!(files.run(&["receipt", "answer"]).0, Some(1));
        assert_eq!(files.run(&["license", "raw"]).0, Some(1));
    }
    // A fault of an item is named behind them too.
    let strange = LicenseContent { identifier: identifier(TYPE, OTHER, "S1"), ..content() };
    files.write("raw", with("\u{feff}", &crate::fixture::envelope(&strange, &[&Pair::ed25519(1)]), "\r\n"));
    let (code, output) = files.run(&["license", "raw"]);
    assert!(code == Some(1) && output.starts_with("invalid: issuer-mismatch"), "{output}");
    let changed = Receipt { c: [1; 32], ..good_receipt() };
    files.write("answer", with("\u{feff}", &attach(ANSWER, &changed), "\n"));
    let (code, output) = files.run(&["receipt", "answer"]);
    assert!(code == Some(1) && output.starts_with("invalid: leaf-mismatch"), "{output}");
    files.write("twice", attach(br#"{"verdict":"valid","verdict":"invalid"}"#, &good_receipt()));
    let (code, output) = files.run(&["receipt", "twice"]);
    assert!(code == Some(1) && output.contains("duplicate-member"), "{output}");
}

#[test]
fn many_items_have_a_line_each_and_the_worst_counts() {
    let files = Files::new("many");
    for folder in ["good", "mixed", "empty"] {
        fs::create_dir_all(files.0.join(folder)).unwrap();
    }
    files.write("good/a.mxl", good_envelope());
    files.write("good/b.mxl", good_envelope());
    let says = "signature genuine; state today NOT checked";
    let (code, output) = files.run(&["license", "good"]);
    assert_eq!((code, output), (Some(0), format!("good/a.mxl: {says}\ngood/b.mxl: {says}\n")));
    files.write("mixed/a.mxl", good_envelope());
    let stranger = LicenseContent { identifier: identifier(TYPE, "91310000000000000U", "S1"), ..content() };
    files.write("mixed/b.mxl", envelope(&stranger, &[&Pair::ed25519(77)]));
    let (code, output) = files.run(&["license", "mixed"]);
    assert!(code == Some(2) && output.ends_with("b.mxl: cannot tell: no-trust-for-issuer\n"), "{output}");
    files.write("mixed/c.mxl", "rubbish");
    let (code, output) = files.run(&["license", "mixed", "--output", "json"]);
    let lines: Vec<serde_json::Value> =
        output.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let verdicts: Vec<_> = lines.iter().map(|line| line["verdict"].as_str().unwrap()).collect();
    assert_eq!((code, verdicts), (Some(1), vec!["valid", "unknown", "invalid"]));
    assert_eq!(files.run(&["license", "empty"]).0, Some(64));
    // An item that is passed over would be taken for checked.
    fs::create_dir_all(files.0.join("nested/below")).unwrap();
    files.write("nested/a.mxl", good_envelope());
    let (code, output) = files.run(&["license", "nested"]);
    assert!(code == Some(64) && output.contains("nested/below"), "{output}");

    let answer = String::from_utf8(attach(ANSWER, &good_receipt())).unwrap();
    files.write("answers", format!("{answer}\n{}\n", answer.replacen("valid", "other", 1)));
    let (code, output) = files.run(&["receipt", "answers"]);
    let lines: Vec<_> = output.lines().collect();
    assert!(lines[0].starts_with("answers:1: receipt genuine: the request was permitted"), "{output}");
    assert_eq!((code, lines[1]), (Some(1), "answers:2: invalid: answer-mismatch"));
    files.write("request", REQUEST);
    assert_eq!(files.run(&["receipt", "answers", "--request", "request"]).0, Some(64));
}

#[test]
fn lines_may_end_with_a_carriage_return() {
    let files = Files::new("carriage-returns");
    let answer = String::from_utf8(attach(ANSWER, &good_receipt())).unwrap();
    files.write("answers", format!("{answer}\r\n{answer}\r\n"));
    let (code, output) = files.run(&["receipt", "answers"]);
    assert_eq!((code, output.matches("receipt genuine").count()), (Some(0), 2), "{output}");
    assert_eq!(output.matches("the final newline of the file was left out").count(), 2, "{output}");
    // Of pages, the receipts are right; that the answers are no pages is another matter.
    for command in ["trace", "audit"] {
        let (code, output) = files.run(&[command, "answers"]);
        assert_eq!((code, output.contains("answer-mismatch")), (Some(1), false), "{output}");
    }
    files.write("changed", format!("{answer}\r\n{}\r\n", answer.replacen("valid", "other", 1)));
    assert!(files.run(&["trace", "changed"]).1.contains("answer-mismatch"));
    let receipt = good_receipt();
    files.write("receipt", serde_json::to_vec(&Receipt { proof: None, ..receipt.clone() }).unwrap());
    files.write("proof", proof_of(&receipt).to_text().replace('\n', "\r\n"));
    let (code, output) = files.run(&["receipt", "receipt", "--proof", "proof"]);
    assert_eq!(code, Some(0), "{output}");
    files.write("trust", trust_note(&bundle()).replace('\n', "\r\n"));
    assert_eq!(files.run(&["receipt", "receipt", "--proof", "proof"]).0, Some(0));
}

#[test]
fn a_whole_log_is_checked_from_its_public_files() {
    let files = Files::new("log");
    let leaf = |n: u64| leaf_bytes(LeafKind::Entry, &sha256(&[&n.to_be_bytes()]));
    let size = 600usize;
    let leaves: Vec<_> = (0..600).map(leaf).collect();
    let hashes: Vec<Hash> = leaves.iter().map(|leaf| leaf_hash(leaf)).collect();
    let (log, folder) = (|name: &str| format!("log/{name}"), files.0.join("log"));
    fs::create_dir_all(folder.join("tile/0")).unwrap();
    fs::create_dir_all(folder.join("tile/1/000.p")).unwrap();
    fs::create_dir_all(folder.join("tile/entries/002.p")).unwrap();
    fs::create_dir_all(folder.join("tile/0/002.p")).unwrap();
    let bundle = |leaves: &[[u8; 34]]| -> Vec<u8> {
        leaves.iter().flat_map(|leaf| [&[0, 34][..], leaf].concat()).collect()
    };
    for (number, name) in ["000", "001", "002.p/88"].iter().enumerate() {
        let range = number * 256..size.min(number * 256 + 256);
        files.write(&log(&format!("tile/entries/{name}")), bundle(&leaves[range.clone()]));
        files.write(&log(&format!("tile/0/{name}")), hashes[range].as_flattened());
    }
    let above = [&hashes[..256], &hashes[256..512]].map(|part| BatchTree::new(part.to_vec()).root());
    files.write(&log("tile/1/000.p/2"), above.as_flattened());
    let checkpoint = |size: usize| {
        let root = BatchTree::new(hashes[..size].to_vec()).root();
        sign_note(3, LOG, &Checkpoint { origin: LOG.to_owned(), size: size as u64, root }.text())
    };
    files.write(&log("checkpoint"), checkpoint(size));
    let run = |words: &[&str]| files.run(&[&["log", "log"], words].concat());
    let (code, output) = run(&[]);
    assert!(
        code == Some(0) && output.starts_with("log genuine: 600 entries make its checkpoint\n"),
        "{output}"
    );
    assert!(output.contains("checked      checkpoint, root, entries, tiles\n"), "{output}");
    files.write("previous", checkpoint(300));
    let (code, output) = run(&["--previous", "previous"]);
    assert!(code == Some(0) && output.contains("root, previous,"), "{output}");
    let other = Checkpoint { origin: LOG.to_owned(), size: 300, root: [1; 32] };
    files.write("previous", sign_note(3, LOG, &other.text()));
    let (code, output) = run(&["--previous", "previous"]);
    assert!(code == Some(1) && output.starts_with("invalid: inconsistent\n"), "{output}");
    // A damaged file is no word of the log's.
    files.write("previous", checkpoint(300));
    let whole = fs::read(folder.join("tile/entries/000")).unwrap();
    let mut flipped = whole.clone();
    flipped[40] ^= 1;
    files.write(&log("tile/entries/000"), flipped);
    let (code, output) = run(&["--previous", "previous"]);
    assert!(code == Some(1) && output.starts_with("invalid: bad-tile"), "{output}");
    assert!(!output.contains("inconsistent"), "{output}");
    files.write(&log("tile/entries/000"), &whole);
    // What is there and cannot be read is not missing; of a folder even root reads nothing.
    fs::remove_file(folder.join("tile/entries/000")).unwrap();
    fs::create_dir(folder.join("tile/entries/000")).unwrap();
    let (code, output) = run(&[]);
    assert!(code == Some(64) && output.contains("tile/entries/000: "), "{output}");
    fs::remove_dir(folder.join("tile/entries/000")).unwrap();
    files.write(&log("tile/entries/000"), &whole);
    // A flipped bit anywhere is named, and what is not there cannot be told.
    for (name, reason) in [
        ("tile/entries/001", "bad-tile"),
        ("tile/0/001", "bad-tile"),
        ("tile/1/000.p/2", "bad-tile"),
        ("checkpoint", "bad-checkpoint"),
    ] {
        let whole = fs::read(folder.join(name)).unwrap();
        let mut flipped = whole.clone();
        flipped[40] ^= 1;
        files.write(&log(name), flipped);
        let (code, output) = run(&[]);
        assert!(code == Some(1) && output.contains(reason), "{name}: {output}");
        files.write(&log(name), whole);
    }
    fs::remove_file(folder.join("tile/1/000.p/2")).unwrap();
    let (code, output) = run(&[]);
    assert!(code == Some(2) && output.starts_with("cannot tell: log-incomplete\n"), "{output}");
    assert!(output.contains("not checked  tiles\n"), "{output}");
    fs::remove_file(folder.join("tile/entries/001")).unwrap();
    let (code, output) = run(&[]);
    assert!(code == Some(2) && output.contains("not checked  entries, tiles\n"), "{output}");
    fs::remove_file(folder.join("tile/0/001")).unwrap();
    let (code, output) = run(&[]);
    assert!(code == Some(2) && output.starts_with("cannot tell: log-incomplete\n"), "{output}");
    let (code, output) = files.run_without_anchor(&["log", "good-or-not"]);
    assert_eq!(code, Some(64), "{output}");
}
