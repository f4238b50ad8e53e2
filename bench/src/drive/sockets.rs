//! The engine for protocols with one request at a time on a connection: non-blocking sockets, rustls and one `epoll`.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::time::Timespec;
use rustls::{ClientConnection, HandshakeKind};

use super::pilot::{Due, Pilot};
use super::wire::Found;
use super::{
    ANSWER_DEADLINE, Answer, CONNECT_DEADLINE, Drive, Endpoint, Event, Handshakes, Outcome, Request, Workload,
};

/// Read at once from a socket.
const READ_BYTES: usize = 64 * 1024;
/// A connection's buffer for an answer at first; it grows with longer ones.
const ANSWER_BYTES: usize = 8 * 1024;
/// Events taken at once: few, so that slots which become due meanwhile do not wait for all of them.
const EVENTS: usize = 64;
/// Between two looks for answers that do not come and connections to be made again.
const SWEEP: Duration = Duration::from_millis(100);
/// Longest wait for TCP to connect.
const TCP_DEADLINE: Duration = Duration::from_secs(5);

/// Finds a whole answer in what was read.
type Parse = fn(&[u8]) -> io::Result<Option<Found>>;

pub(super) fn run(
    plan: &Drive,
    parse: Parse,
    workload: &mut dyn Workload,
    events: Sender<Event>,
    stop: &AtomicBool,
) -> anyhow::Result<Outcome> {
    let mut sockets = Sockets::open(plan, parse)?;
    let handshakes = sockets.shake_hands()?;
    let mut pilot = Pilot::start(plan, workload, events, plan.connections);
    pilot.shaken(handshakes);
    let mut sweep = Instant::now() + SWEEP;
    loop {
        let now = Instant::now();
        pilot.tick(now);
        if now >= sweep {
            sockets.sweep(&mut pilot, now);
            sweep = now + SWEEP;
        }
        sockets.send(&mut pilot);
        if pilot.over(now) || stop.load(Ordering::Relaxed) {
            return Ok(pilot.finish());
        }
        let wake = pilot.wake().min(sweep);
        sockets.wait(wake.saturating_duration_since(Instant::now()))?;
        for event in 0..sockets.events.len() {
            sockets.ready(sockets.number(event), &mut pilot);
        }
    }
}

struct Sockets<'a> {
    plan: &'a Drive,
    parse: Parse,
    epoll: OwnedFd,
    events: Vec<epoll::Event>,
    connections: Vec<Connection>,
    /// Connections without a request, by lane; some may have broken meanwhile.
    idle: Vec<Vec<usize>>,
    scratch: Vec<u8>,
}

struct Connection {
    lane: usize,
    /// `None` until it is made again.
    line: Option<Line>,
    state: State,
    request: Request,
    input: Vec<u8>,
    /// Bytes of the answer in `input`.
    filled: usize,
    /// Answers on this line.
    answers: u64,
}

#[derive(Clone, Copy)]
enum State {
    Shaking,
    Idle,
    /// The request, and when it was sent.
    Busy(Due, Instant),
}

/// A socket and what is spoken on it.
struct Line {
    stream: TcpStream,
    tls: Option<Box<ClientConnection>>,
    /// In clear: bytes of the request that are not sent.
    unsent: usize,
    /// The socket is full; we hear of it when it is not.
    full: bool,
}

/// What reading has led to.
enum Read {
    Nothing,
    Ready,
    Answer(Found),
}

impl<'a> Sockets<'a> {
    fn open(plan: &'a Drive, parse: Parse) -> anyhow::Result<Self> {
        let mut sockets = Self {
            plan,
            parse,
            epoll: epoll::create(CreateFlags::CLOEXEC)?,
            events: Vec::with_capacity(EVENTS),
            connections: Vec::new(),
            idle: vec![Vec::new(); plan.endpoints.len()],
            scratch: vec![0; READ_BYTES],
        };
        for lane in 0..plan.endpoints.len() {
            for _ in 0..plan.connections {
                let number = sockets.connections.len();
                sockets.connections.push(Connection {
                    lane,
                    line: None,
                    state: State::Shaking,
                    request: Request::default(),
                    input: vec![0; ANSWER_BYTES],
                    filled: 0,
                    answers: 0,
                });
                sockets.connect(number).with_context(|| {
                    plan.endpoints.get(lane).map_or_else(String::new, |endpoint| endpoint.address.to_string())
                })?;
            }
        }
        Ok(sockets)
    }

    /// Makes a connection, or makes it again; the old one is closed. Waits for TCP only.
    fn connect(&mut self, number: usize) -> io::Result<()> {
        let connection = &mut self.connections[number];
        connection.line = None;
        connection.state = State::Shaking;
        (connection.filled, connection.answers) = (0, 0);
        let endpoint = &self.plan.endpoints[connection.lane];
        let mut line = Line::open(endpoint)?;
        line.flush(&connection.request)?;
        let flags = if line.full { EventFlags::IN | EventFlags::OUT } else { EventFlags::IN };
        epoll::add(&self.epoll, &line.stream, EventData::new_u64(number as u64), flags)?;
        if line.tls.is_none() {
            connection.state = State::Idle;
            self.idle[connection.lane].push(number);
        }
        connection.line = Some(line);
        Ok(())
    }

    /// Waits until every connection is ready.
    fn shake_hands(&mut self) -> anyhow::Result<Handshakes> {
        let deadline = Instant::now() + CONNECT_DEADLINE;
        let mut handshakes = Handshakes::default();
        let mut ready: usize = self.idle.iter().map(Vec::len).sum();
        while ready < self.connections.len() {
            let rest = deadline.saturating_duration_since(Instant::now());
            ensure!(!rest.is_zero(), "{ready} of {} connections came about in time", self.connections.len());
            self.wait(rest)?;
            for number in (0..self.events.len()).map(|event| self.number(event)).collect::<Vec<_>>() {
                match self.read(number).context("no connection")? {
                    Read::Ready => {
                        handshakes.count(self.shaken(number));
                        ready += 1;
                    }
                    Read::Nothing => {}
                    Read::Answer(_) => anyhow::bail!("the server speaks without being asked"),
                }
            }
        }
        Ok(handshakes)
    }

    /// A handshake is over.
    fn shaken(&mut self, number: usize) -> Option<HandshakeKind> {
        let connection = &mut self.connections[number];
        connection.state = State::Idle;
        self.idle[connection.lane].push(number);
        connection.line.as_ref()?.tls.as_ref()?.handshake_kind()
    }

    /// The connection that an event is about.
    fn number(&self, event: usize) -> usize {
        self.events[event].data.u64() as usize
    }

    /// Waits until something happens on a connection.
    fn wait(&mut self, longest: Duration) -> anyhow::Result<()> {
        let timeout = Timespec {
            tv_sec: i64::try_from(longest.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: longest.subsec_nanos().into(),
        };
        self.events.clear();
        match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut self.events), Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Sends what waits on connections that are free.
    fn send(&mut self, pilot: &mut Pilot<'_>) {
        for lane in 0..self.idle.len() {
            while pilot.waits(lane) {
                let Some(number) = self.idle[lane].pop() else { break };
                let connection = &mut self.connections[number];
                let (State::Idle, Some(line)) = (connection.state, &mut connection.line) else { continue };
                let now = Instant::now();
                let Some(due) = pilot.take(lane, now, &mut connection.request) else { break };
                connection.state = State::Busy(due, now);
                let sent = line.send(&connection.request).and_then(|()| self.listen(number));
                if sent.is_err() {
                    self.broken(number, "connection", pilot, now);
                }
            }
        }
    }

    /// Hears of room in the socket while there is none.
    fn listen(&mut self, number: usize) -> io::Result<()> {
        let Connection { line: Some(line), request, .. } = &mut self.connections[number] else {
            return Ok(());
        };
        let full = line.full;
        line.flush(request)?;
        if full != line.full {
            let flags = if line.full { EventFlags::IN | EventFlags::OUT } else { EventFlags::IN };
            epoll::modify(&self.epoll, &line.stream, EventData::new_u64(number as u64), flags)?;
        }
        Ok(())
    }

    /// Something has happened on a connection.
    fn ready(&mut self, number: usize, pilot: &mut Pilot<'_>) {
        let read = self.listen(number).and_then(|()| self.read(number));
        let now = Instant::now();
        match read {
            Ok(Read::Nothing) => {}
            Ok(Read::Ready) => {
                let mut handshakes = Handshakes::default();
                handshakes.count(self.shaken(number));
                pilot.shaken(handshakes);
            }
            Ok(Read::Answer(found)) => self.answered(number, &found, pilot, now),
            Err(_) => self.broken(number, "connection", pilot, now),
        }
        // What has become due meanwhile goes out before the next event is looked at.
        pilot.release(now);
        self.send(pilot);
    }

    fn answered(&mut self, number: usize, found: &Found, pilot: &mut Pilot<'_>, now: Instant) {
        let connection = &mut self.connections[number];
        let State::Busy(due, _) = connection.state else { return };
        let answer = Answer { status: found.status, body: &connection.input[found.body.clone()] };
        connection.state = State::Idle;
        connection.filled = 0;
        connection.answers += 1;
        pilot.answered(due, now, &connection.request, answer);
        let worn = self.plan.requests_a_connection.is_some_and(|limit| connection.answers >= limit.get());
        if found.closes || worn {
            if let Some(line) = &mut connection.line {
                line.close();
            }
            self.again(number, pilot);
        } else {
            self.idle[connection.lane].push(number);
        }
    }

    /// A connection is of no use any more.
    fn broken(&mut self, number: usize, cause: &str, pilot: &mut Pilot<'_>, now: Instant) {
        let state = self.connections[number].state;
        self.connections[number].line = None;
        match state {
            State::Busy(..) => pilot.failed(cause, now),
            State::Shaking => pilot.error("connect", 1),
            // The server may close what is not used.
            State::Idle => {}
        }
        // Made again by the next sweep: at once would be a storm when the server refuses.
        self.connections[number].state = State::Shaking;
    }

    fn again(&mut self, number: usize, pilot: &mut Pilot<'_>) {
        if self.connect(number).is_err() {
            self.connections[number].line = None;
            pilot.error("connect", 1);
        }
    }

    /// Gives up answers that do not come, and makes broken connections again.
    fn sweep(&mut self, pilot: &mut Pilot<'_>, now: Instant) {
        for number in 0..self.connections.len() {
            match self.connections[number].state {
                State::Busy(_, sent) if now.duration_since(sent) > ANSWER_DEADLINE => {
                    self.broken(number, "late", pilot, now);
                }
                _ if self.connections[number].line.is_none() => self.again(number, pilot),
                _ => {}
            }
        }
    }

    fn read(&mut self, number: usize) -> io::Result<Read> {
        let connection = &mut self.connections[number];
        let Some(line) = &mut connection.line else { return Ok(Read::Nothing) };
        loop {
            let read = match line.stream.read(&mut self.scratch) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(read) => read,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Read::Nothing),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            line.receive(&self.scratch[..read], &mut connection.input, &mut connection.filled)?;
            match connection.state {
                State::Shaking => {
                    line.flush(&connection.request)?;
                    if line.tls.as_ref().is_none_or(|tls| !tls.is_handshaking()) {
                        return Ok(Read::Ready);
                    }
                }
                State::Idle if connection.filled > 0 => {
                    return Err(io::Error::new(
                        ErrorKind::InvalidData,
                        "the server speaks without being asked",
                    ));
                }
                State::Idle => {}
                State::Busy(..) => {
                    if let Some(found) = (self.parse)(&connection.input[..connection.filled])? {
                        if found.bytes < connection.filled {
                            return Err(io::Error::new(ErrorKind::InvalidData, "more than one answer"));
                        }
                        return Ok(Read::Answer(found));
                    }
                }
            }
            if read < self.scratch.len() {
                return Ok(Read::Nothing);
            }
        }
    }
}

impl Handshakes {
    pub(super) fn count(&mut self, kind: Option<HandshakeKind>) {
        match kind {
            Some(HandshakeKind::Resumed) => self.resumed += 1,
            Some(_) => self.full += 1,
            None => {}
        }
    }
}

impl Line {
    fn open(endpoint: &Endpoint) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&endpoint.address, TCP_DEADLINE)?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        let tls = match &endpoint.tls {
            Some(tls) => {
                let connection = ClientConnection::new(Arc::clone(tls), endpoint.name.clone());
                Some(Box::new(connection.map_err(io::Error::other)?))
            }
            None => None,
        };
        Ok(Self { stream, tls, unsent: 0, full: false })
    }

    /// Hands a whole request over.
    fn send(&mut self, request: &Request) -> io::Result<()> {
        match &mut self.tls {
            Some(tls) => tls.writer().write_all(&request.bytes),
            None => {
                self.unsent = request.bytes.len();
                Ok(())
            }
        }
    }

    /// Writes what the socket takes.
    fn flush(&mut self, request: &Request) -> io::Result<()> {
        self.full = false;
        loop {
            let written = match &mut self.tls {
                Some(tls) if tls.wants_write() => tls.write_tls(&mut self.stream).map(|_| ()),
                None if self.unsent > 0 => {
                    let rest = &request.bytes[request.bytes.len() - self.unsent..];
                    self.stream.write(rest).map(|written| self.unsent -= written)
                }
                _ => return Ok(()),
            };
            match written {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.full = true;
                    return Ok(());
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                other => other?,
            }
        }
    }

    /// Takes what the socket gave; what it says to us ends in `input`.
    fn receive(&mut self, mut bytes: &[u8], input: &mut Vec<u8>, filled: &mut usize) -> io::Result<()> {
        let Some(tls) = &mut self.tls else {
            room(input, *filled + bytes.len())[*filled..*filled + bytes.len()].copy_from_slice(bytes);
            *filled += bytes.len();
            return Ok(());
        };
        while !bytes.is_empty() {
            tls.read_tls(&mut bytes)?;
            let state = tls.process_new_packets().map_err(io::Error::other)?;
            let end = *filled + state.plaintext_bytes_to_read();
            tls.reader().read_exact(&mut room(input, end)[*filled..end])?;
            *filled = end;
        }
        Ok(())
    }

    /// Says that nothing more comes, as far as the socket takes it.
    fn close(&mut self) {
        if let Some(tls) = &mut self.tls {
            tls.send_close_notify();
            let _ = tls.write_tls(&mut self.stream);
        }
    }
}

/// The buffer, at least so long.
fn room(input: &mut Vec<u8>, bytes: usize) -> &mut [u8] {
    if input.len() < bytes {
        input.resize(bytes.next_power_of_two(), 0);
    }
    input
}
