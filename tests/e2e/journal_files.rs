//! The journal's files under a running exchange: one that is deleted, cut or replaced is noticed at once, and nothing is
//! answered any more.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use tests::{Server, Setup, draft, natural};

/// Exit status of an exchange whose journal cannot go on.
const EXIT_IO: i32 = 74;

/// The segments that frames were written to, in order; the last one is written to.
fn begun(server: &Server) -> Vec<PathBuf> {
    let mut begun: Vec<PathBuf> = fs::read_dir(server.folder.join("journal"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|end| end == "mxj"))
        .filter(|path| fs::read(path).unwrap().starts_with(b"MXS1"))
        .collect();
    begun.sort();
    begun
}

fn cut(path: &Path) {
    let file = File::options().write(true).open(path).unwrap();
    file.set_len(file.metadata().unwrap().len() / 2).unwrap();
}

/// The same bytes in another file.
fn replace(path: &Path) {
    let other = path.with_extension("other");
    fs::copy(path, &other).unwrap();
    fs::rename(other, path).unwrap();
}

/// An exchange with a closed segment and one that is written to.
async fn with_a_closed_segment() -> Server {
    let mut server = Setup::new().start().await;
    draft(&natural()).issue(&mut server.party("issuer")).await;
    assert_eq!(server.stop(), Some(0));
    server.start();
    draft(&natural()).issue(&mut server.party("issuer")).await;
    assert!(begun(&server).len() >= 2);
    server
}

/// It ends by itself, with the status of a broken disk, and says why.
fn ends(server: &mut Server) -> String {
    assert_eq!(server.exit_status(), Some(EXIT_IO), "{}", server.stderr());
    let said = server.stderr();
    assert!(said.contains("while the journal is open"), "{said}");
    said
}

#[tokio::test]
async fn the_segment_that_is_written_to() {
    for damage in [|path: &Path| fs::remove_file(path).unwrap(), cut] {
        let mut server = with_a_closed_segment().await;
        let path = begun(&server).pop().unwrap();
        damage(&path);
        // Not even the next request is answered.
        let mut issuer = server.party("issuer");
        if let Ok(reply) = issuer.try_send(&draft(&natural()).call()).await {
            assert!(reply.status >= 500 && verifier::receipt::cut(&reply.body).is_err(), "{}", reply.json);
        }
        ends(&mut server);
    }
}

#[tokio::test]
async fn any_segment_of_an_idle_exchange() {
    for damage in [|path: &Path| fs::remove_file(path).unwrap(), cut, replace] {
        for closed in [true, false] {
            let mut server = with_a_closed_segment().await;
            let segments = begun(&server);
            let path = if closed { segments.first() } else { segments.last() }.unwrap();
            damage(path);
            let said = ends(&mut server);
            let name = path.file_name().unwrap().to_str().unwrap();
            assert!(!closed || said.contains(name), "{said}");
        }
    }
}
