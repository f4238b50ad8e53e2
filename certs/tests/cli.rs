//! The command line, as a process.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;
use std::path::Path;
use std::process::Command;

const ORGANISATION: &str = "11100000MB0341032Y";

/// Exit code, standard output, standard error.
fn certs(data: &Path, arguments: &[&str]) -> (i32, String, String) {
    let output =
        Command::new(env!("CARGO_BIN_EXE_certs")).arg("--data").arg(data).args(arguments).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

#[test]
fn init_issue_revoke_and_inspect() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let (code, out, _) = certs(&data, &["init"]);
    assert_eq!(code, 0);
    assert!(out.contains("journal index log trust"));
    let (code, out, _) = certs(&data, &["init"]);
    assert_eq!((code, out.lines().next().unwrap()), (0, "keys made: none"));

    let (code, out, _) = certs(&data, &["issue", "bank", "--organisation", ORGANISATION]);
    assert_eq!((code, out.lines().count()), (0, 2));
    let certificate = data.join("pki/clients/bank.pem");
    let (code, out, _) = certs(&data, &["inspect", certificate.to_str().unwrap(), "--output", "json"]);
    assert_eq!(code, 0);
    let found: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(found[0]["organisation"], ORGANISATION);

    let (code, out, _) = certs(&data, &["revoke", certificate.to_str().unwrap()]);
    assert_eq!(code, 0);
    assert!(out.contains("holds 1 revoked"));
    let (code, out, _) = certs(&data, &["inspect", data.join("pki/crl.pem").to_str().unwrap()]);
    assert_eq!(code, 0);
    assert!(out.contains(found[0]["serial"].as_str().unwrap()));
}

#[test]
fn bundles_are_signed_and_wrong_ones_are_not() {
    let dir = tempfile::tempdir().unwrap();
    let bundle = dir.path().join("bundle.json");
    let good = "{\"version\":1,\"sequence\":3,\"issuedAt\":1790000000,\"expires\":1821536000,\"journalIndex\":0,\
                \"issuers\":[],\"logs\":[],\"witnesses\":[],\"peers\":[]}";
    fs::write(&bundle, good).unwrap();
    let sign = ["bundle", "--name", "trust.example.test", bundle.to_str().unwrap()];
    // No keys yet.
    let (code, out, err) = certs(dir.path(), &sign);
    assert_eq!((code, out.as_str(), err.lines().count()), (64, "", 1));
    certs(dir.path(), &["init"]);
    let (code, note, _) = certs(dir.path(), &sign);
    assert_eq!(code, 0);
    assert!(
        note.starts_with(good.trim_end_matches('}'))
            && note.contains(",\"authority\":\"trust.example.test+")
            && note.contains("\n\n— trust.example.test ")
    );
    let signed = dir.path().join("bundle.note");
    fs::write(&signed, note).unwrap();
    let (code, out, _) = certs(dir.path(), &["inspect", signed.to_str().unwrap()]);
    assert_eq!(code, 0);
    assert!(out.contains("sequence: 3") && out.contains("signature: not checked"));
    fs::write(&bundle, good.replacen("\"version\":1", "\"version\":9", 1)).unwrap();
    let (code, out, err) = certs(dir.path(), &sign);
    assert_eq!((code, out.as_str()), (64, ""));
    assert!(err.contains("version 9"));
}

#[test]
fn wrong_use_is_told_in_one_place() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(certs(dir.path(), &[]).0, 64);
    assert_eq!(certs(dir.path(), &["issue", "bank"]).0, 64);
    assert_eq!(certs(dir.path(), &["issue", "bank", "--organisation", "11100000MB0341032X"]).0, 64);
    assert_eq!(certs(dir.path(), &["issue", "bank", "--organisation", ORGANISATION, "--days", "0"]).0, 64);
    assert_eq!(certs(dir.path(), &["--help"]).0, 0);
    // A folder without a PKI gets none from a command that only uses it.
    let (code, _, err) = certs(dir.path(), &["issue", "bank", "--organisation", ORGANISATION]);
    assert_eq!(code, 64);
    assert!(err.contains("certs init"));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn keys_of_an_existing_journal_are_never_made_anew() {
    let dir = tempfile::tempdir().unwrap();
    certs(dir.path(), &["init"]);
    fs::create_dir(dir.path().join("journal")).unwrap();
    fs::write(dir.path().join("journal/0000000000.mxj"), "x").unwrap();
    // Made by the exchange, which knows the log's name.
    fs::write(dir.path().join("keys/epoch"), "x").unwrap();
    assert_eq!(certs(dir.path(), &["init"]).0, 0);
    for lost in ["keys/epoch", "secret/kek"] {
        let path = dir.path().join(lost);
        let content = fs::read(&path).unwrap();
        fs::remove_file(&path).unwrap();
        let (code, _, err) = certs(dir.path(), &["init"]);
        assert_eq!(code, 64);
        assert!(err.contains("backup"));
        assert!(!path.exists());
        fs::write(&path, content).unwrap();
    }
}
