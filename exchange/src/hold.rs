//! Failpoints for tests: the window between decision and commit, and a page that is long in reading. Builds without
//! debug assertions, every release build among them, never wait. The environment of a test alone sets them. A crash
//! leaves the test's own files.

/// Whether the request asks to be held.
pub(crate) fn asked(headers: &hyper::HeaderMap) -> bool {
    cfg!(debug_assertions) && headers.contains_key("x-miaoxiang-hold")
}

/// Waits while the file that `MIAOXIANG_HOLD` names exists, for a request that carries `x-miaoxiang-hold`.
#[cfg(debug_assertions)]
pub(crate) async fn before_commit(held: bool) {
    let Some(path) = std::env::var_os("MIAOXIANG_HOLD").filter(|_| held) else { return };
    let arrived = std::path::PathBuf::from(&path).with_extension("arrived");
    // Tells the test that the decision is made.
    let _ = std::fs::write(arrived, b"");
    while std::path::Path::new(&path).exists() {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

/// Does nothing.
#[cfg(not(debug_assertions))]
pub(crate) async fn before_commit(_held: bool) {}

/// Blocks the reading of a page while the file that `MIAOXIANG_HOLD_PAGES` names exists.
pub(crate) fn page() {
    #[cfg(debug_assertions)]
    if let Some(path) = std::env::var_os("MIAOXIANG_HOLD_PAGES") {
        while std::path::Path::new(&path).exists() {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }
}
