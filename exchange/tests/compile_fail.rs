//! What must not compile: each step of the request path needs the evidence of the one before. The files say what they try; the
//! compiler's words beside them are those of the toolchain that the workspace names.

#[test]
fn no_step_is_made_without_its_evidence() {
    let cases = trybuild::TestCases::new();
    cases.compile_fail("tests/compile_fail/*.rs");
}
