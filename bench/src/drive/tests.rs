//! The generator against servers that behave badly.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Mutex;

use super::*;
use crate::target::{Body, Fixed};

/// A server in clear that answers each request with what `answer` gives for its number; it goes on until the test ends.
fn server(answer: impl Fn(u64) -> Vec<u8> + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let answer = Arc::new((answer, std::sync::atomic::AtomicU64::new(0), Mutex::new(())));
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let answer = Arc::clone(&answer);
            std::thread::spawn(move || serve(stream, &answer.0, &answer.1, &answer.2));
        }
    });
    address
}

/// Requests without a body, one at a time over all connections, as of a server with one worker.
fn serve(
    mut stream: TcpStream,
    answer: &dyn Fn(u64) -> Vec<u8>,
    number: &std::sync::atomic::AtomicU64,
    worker: &Mutex<()>,
) {
    let mut buffer = [0; 4_096];
    while let Ok(read @ 1..) = stream.read(&mut buffer) {
        if !buffer[..read].ends_with(b"\r\n\r\n") {
            continue;
        }
        let answer = {
            let _one_at_a_time = worker.lock().unwrap();
            answer(number.fetch_add(1, Ordering::Relaxed))
        };
        if answer.is_empty() || stream.write_all(&answer).is_err() || answer.starts_with(CLOSING) {
            return;
        }
    }
}

/// Begins an answer behind which the server closes.
const CLOSING: &[u8] = b"HTTP/1.1 200 X\r\nconnection: close\r\n";

fn http(status: u16, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

fn plan(address: SocketAddr, arrivals: Arrivals) -> Drive {
    Drive {
        endpoints: vec![Endpoint { address, name: ServerName::IpAddress(address.ip().into()), tls: None }],
        connections: 2,
        protocol: Protocol::Http1,
        arrivals,
        warm_up: Duration::from_millis(100),
        duration: Duration::from_millis(900),
        requests_a_connection: None,
        core: None,
    }
}

fn constant(rate: f64) -> Arrivals {
    Arrivals::Open { rate: Rate::Constant(rate), poisson: false }
}

fn run(plan: &Drive) -> Outcome {
    let mut fixed = Fixed::http("h", "GET", "/", &[], b"", 200, Body::Bytes(b"right".to_vec()));
    drive(plan, &mut fixed, &mut |_| Ok(())).unwrap()
}

#[test]
fn every_scheduled_request_is_answered_and_counted_once() {
    let outcome = run(&plan(server(|_| http(200, "right")), constant(400.0)));
    assert_eq!(outcome.errors, BTreeMap::new());
    // 0.1 s of warm-up and 0.9 s measured.
    assert!((398..=400).contains(&outcome.all_answers), "{}", outcome.all_answers);
    assert!((359..=361).contains(&outcome.scheduled), "{}", outcome.scheduled);
    assert_eq!(outcome.answers, outcome.scheduled);
    assert_eq!(outcome.latency.len(), outcome.answers);
    assert_eq!(outcome.kinds.len(), 1);
    assert_eq!(outcome.lateness.len(), outcome.scheduled);
}

#[test]
fn a_stall_is_charged_to_every_request_that_had_to_wait_for_it() {
    let stall = Duration::from_millis(400);
    let address = server(move |number| {
        if number == 100 {
            std::thread::sleep(stall);
        }
        http(200, "right")
    });
    let outcome = run(&plan(address, constant(400.0)));
    assert_eq!(outcome.errors, BTreeMap::new());
    assert_eq!(outcome.answers, outcome.scheduled);
    // About 160 slots pass during the stall, and all of them waited; only two connections carried a slow answer.
    let waited = outcome.latency.count_between(20_000, u64::MAX);
    assert!(waited >= 120, "{waited} answers show the stall");
    assert!(outcome.latency.max() >= 395_000, "{}", outcome.latency.max());
    assert!(outcome.missed >= 100, "{} missed slots", outcome.missed);
}

#[test]
fn a_server_that_answers_garbage_gives_no_answer() {
    for (garbage, cause) in [
        (http(200, "wrong"), "body"),
        (http(200, "righ"), "body"),
        (http(500, "right"), "500"),
        (b"garbage\r\n\r\n".to_vec(), "connection"),
        ([http(200, "right"), http(200, "right")].concat(), "connection"),
        (Vec::new(), "connection"),
    ] {
        let plan = Drive {
            duration: Duration::from_millis(200),
            ..plan(server(move |_| garbage.clone()), Arrivals::Closed)
        };
        let outcome = run(&plan);
        assert_eq!((outcome.answers, outcome.latency.len()), (0, 0));
        assert!(outcome.errors.get(cause).is_some_and(|count| *count > 0), "{cause}: {:?}", outcome.errors);
    }
}

#[test]
fn worn_connections_are_made_again_without_an_error() {
    let mut plan = plan(server(|_| http(200, "right")), constant(200.0));
    plan.requests_a_connection = NonZeroU64::new(3);
    let outcome = run(&plan);
    assert_eq!(outcome.errors, BTreeMap::new());
    assert_eq!(outcome.answers, outcome.scheduled);
}

#[test]
fn an_answer_that_comes_with_the_end_of_its_connection_counts() {
    let answer = [CLOSING, b"content-length: 5\r\n\r\nright"].concat();
    for arrivals in [Arrivals::Closed, constant(200.0)] {
        let answer = answer.clone();
        let outcome = run(&plan(server(move |_| answer.clone()), arrivals));
        assert_eq!(outcome.errors, BTreeMap::new());
        assert!(outcome.answers > 0);
        if arrivals != Arrivals::Closed {
            assert_eq!(outcome.answers, outcome.scheduled);
        }
    }
}

#[test]
fn events_gather_only_where_looking_at_each_is_too_dear() {
    let address = SocketAddr::from(([127, 0, 0, 1], 1));
    let gathered = |arrivals, connections| {
        sockets::gather(&Drive { connections, ..plan(address, arrivals) }).as_micros()
    };
    assert_eq!((gathered(Arrivals::Closed, 63), gathered(Arrivals::Closed, 64)), (0, 100));
    assert_eq!((gathered(constant(24_999.0), 128), gathered(constant(25_000.0), 1)), (0, 50));
    let outcome = run(&Drive { connections: 64, ..plan(server(|_| http(200, "right")), Arrivals::Closed) });
    assert_eq!(outcome.errors, BTreeMap::new());
    assert!(outcome.answers > 0);
}

#[test]
fn requests_and_answers_of_many_records_are_sent_and_found_whole() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (address, [ca, certificate, key]) = runtime.block_on(tls_server(false, folder.path()));
    let mut plan = plan(address, Arrivals::Closed);
    plan.endpoints[0].tls =
        Some(client_tls(&ca, Some((&certificate, &key)), Protocol::Http1, false).unwrap());
    // More than a socket takes or gives at once.
    let body: Vec<u8> = (0..3_000_000_u32).map(|at| (at % 251) as u8).collect();
    let mut fixed = Fixed::http("h", "PUT", "/", &[], &body, 200, Body::Bytes(body.clone()));
    let outcome = drive(&plan, &mut fixed, &mut |_| Ok(())).unwrap();
    assert_eq!(outcome.errors, BTreeMap::new());
    assert!(outcome.answers > 0);
}

#[test]
fn the_caller_hears_of_the_measured_time_and_can_stop_it() {
    let plan = plan(server(|_| http(200, "right")), Arrivals::Closed);
    let mut fixed = Fixed::http("h", "GET", "/", &[], b"", 200, Body::Bytes(b"right".to_vec()));
    let mut heard = Vec::new();
    let outcome = drive(&plan, &mut fixed, &mut |event| {
        heard.push(event);
        Ok(())
    });
    assert!(outcome.unwrap().answers > 0);
    let began = heard.iter().position(|event| matches!(event, Event::Began)).unwrap();
    let ended = heard.iter().position(|event| matches!(event, Event::Ended)).unwrap();
    assert!(began < ended && heard[began..ended].iter().any(|event| matches!(event, Event::Second(_))));
    let stopped = drive(&plan, &mut fixed, &mut |_| anyhow::bail!("enough"));
    assert_eq!(stopped.unwrap_err().to_string(), "enough");
}

#[test]
fn a_server_that_is_not_there_is_an_error_and_no_outcome() {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut fixed = Fixed::http("h", "GET", "/", &[], b"", 200, Body::Length(0));
    let failed = drive(&plan(address, Arrivals::Closed), &mut fixed, &mut |_| Ok(()));
    assert!(format!("{:#}", failed.unwrap_err()).contains(&address.to_string()));
    let broken = Drive { connections: 0, ..plan(address, Arrivals::Closed) };
    assert!(drive(&broken, &mut fixed, &mut |_| Ok(())).is_err());
    assert!(drive(&plan(address, constant(-1.0)), &mut fixed, &mut |_| Ok(())).is_err());
}

fn outcome() -> Outcome {
    Outcome {
        duration: Duration::from_secs(1),
        answers: 0,
        all_answers: 0,
        scheduled: 0,
        missed: 0,
        errors: BTreeMap::new(),
        latency: new_histogram(),
        kinds: Vec::new(),
        lateness: new_histogram(),
        rows: Vec::new(),
        handshakes: Handshakes::default(),
        generator_cpu: 0.5,
        core_busy: Some(0.79),
    }
}

#[test]
fn a_generator_that_measures_itself_voids_the_run() {
    assert_eq!(outcome().void(), None);
    let busy = Outcome { core_busy: Some(0.8), ..outcome() };
    assert!(busy.void().unwrap().contains("80 %"));
    let thread = Outcome { generator_cpu: 0.93, core_busy: None, ..outcome() };
    assert!(thread.void().unwrap().contains("93 %"));
    let mut late = outcome();
    (0..99).for_each(|_| late.lateness.record(50).unwrap());
    late.lateness.record(9_000).unwrap();
    assert_eq!(late.void(), None, "one in a hundred is what the 99th percentile leaves out");
    (0..5).for_each(|_| late.lateness.record(9_000).unwrap());
    assert!(late.void().unwrap().contains("behind its schedule"));
}

/// A server of HTTP/1.1 and HTTP/2 over mTLS that resumes sessions if it may; gives its address and a client's files.
async fn tls_server(resumes: bool, folder: &std::path::Path) -> (SocketAddr, [String; 3]) {
    use certs::pki::{DevelopmentPki, LEAF_VALIDITY, Validity};
    use hyper::service::service_fn;
    use hyper_util::rt::{TokioExecutor, TokioIo};

    let pki = DevelopmentPki::create_missing(folder).unwrap();
    let organisation = exchange::init::development_organisations()[0];
    pki.issue_client("client", &[organisation], Validity::starting_now(LEAF_VALIDITY)).unwrap();
    let read = |path: std::path::PathBuf| std::fs::read_to_string(path).unwrap();
    let (certificate, key) = (read(pki.server_files().certificate), read(pki.server_files().key));
    let mut config = (*tls::server_config(&certificate, &key, Some(pki.ca_pem())).unwrap()).clone();
    if resumes {
        config.session_storage = rustls::server::ServerSessionMemoryCache::new(64);
        config.send_tls13_tickets = 2;
    }
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let http2 = stream.get_ref().1.alpn_protocol() == Some(tls::ALPN_H2);
                let service = service_fn(async |request: hyper::Request<hyper::body::Incoming>| {
                    let body = match request.method().as_str() {
                        "GET" => "right".into(),
                        // What was sent.
                        "PUT" => http_body_util::BodyExt::collect(request.into_body()).await?.to_bytes(),
                        _ => "wrong".into(),
                    };
                    Ok::<_, hyper::Error>(hyper::Response::new(http_body_util::Full::new(body)))
                });
                let stream = TokioIo::new(stream);
                // A client that goes away is no failure of this server.
                if http2 {
                    let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                    let _ = server.serve_connection(stream, service).await;
                } else {
                    let _ =
                        hyper::server::conn::http1::Builder::new().serve_connection(stream, service).await;
                }
            });
        }
    });
    let client = ["client.pem", "client.key"].map(|name| read(folder.join("clients").join(name)));
    let [certificate, key] = client;
    (address, [pki.ca_pem().to_owned(), certificate, key])
}

#[test]
fn sessions_are_resumed_when_both_sides_want_it_and_http2_answers_the_same_requests() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let folder = tempfile::tempdir().unwrap();
    for (server_resumes, resumption, protocol) in [
        (true, true, Protocol::Http1),
        (true, false, Protocol::Http1),
        (false, true, Protocol::Http1),
        (false, true, Protocol::Http2 { streams: 3 }),
    ] {
        let (address, [ca, certificate, key]) = runtime.block_on(tls_server(server_resumes, folder.path()));
        let mut plan = plan(address, constant(100.0));
        let tls = client_tls(&ca, Some((&certificate, &key)), protocol, resumption).unwrap();
        plan.endpoints[0].tls = Some(tls);
        plan.protocol = protocol;
        if protocol == Protocol::Http1 {
            plan.requests_a_connection = NonZeroU64::new(10);
        }
        let outcome = run(&plan);
        assert_eq!(outcome.errors, BTreeMap::new());
        assert_eq!(outcome.answers, outcome.scheduled);
        let Handshakes { full, resumed } = outcome.handshakes;
        if protocol != Protocol::Http1 {
            assert_eq!((full, resumed), (2, 0));
        } else if server_resumes && resumption {
            assert!(full >= 2 && resumed >= 6, "{full} full, {resumed} resumed");
        } else {
            assert!(full >= 8 && resumed == 0, "{full} full, {resumed} resumed");
        }
        let mut wrong = Fixed::http("h", "POST", "/", &[], b"x", 200, Body::Bytes(b"right".to_vec()));
        let outcome = drive(&plan, &mut wrong, &mut |_| Ok(())).unwrap();
        assert_eq!(outcome.answers, 0);
        assert_eq!(outcome.errors.get("body"), Some(&outcome.errors.values().sum()));
    }
}
