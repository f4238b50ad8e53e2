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
use rustix::net::sockopt;
use rustix::time::Timespec;
use rustls::HandshakeKind;
use rustls::client::UnbufferedClientConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, UnbufferedStatus};

use super::pilot::{Due, Pilot};
use super::wire::Found;
use super::{
    ANSWER_DEADLINE, Answer, Arrivals, CONNECT_DEADLINE, Drive, Endpoint, Event, Handshakes, Outcome, Rate,
    Request, Workload,
};

/// What is taken from a socket at once, behind what is left of the last time: a handshake message has up to 64 KiB.
const READ_BYTES: usize = 128 * 1024;
/// The buffer for records that are sent, at first; it grows with longer requests.
const SEND_BYTES: usize = 32 * 1024;
/// Longest part of a request in one TLS record (RFC 8446, 5.1), and more than what a record adds to it.
const RECORD_BYTES: usize = 16 * 1024;
const RECORD_OVERHEAD: usize = 64;
/// A connection's buffer for an answer at first; it grows with longer ones.
const ANSWER_BYTES: usize = 8 * 1024;
/// Events taken at once: few, so that slots which become due meanwhile do not wait for all of them.
const EVENTS: usize = 64;
/// In the closed loop answers gather so long, when so many requests are under way that a server does not run out of them.
const CLOSED_GATHER: Duration = Duration::from_micros(100);
const GATHERED_CONNECTIONS: usize = 64;
/// In the open loop answers and slots gather so long from a rate on that is beyond looking at each by itself. The server is charged
/// with it.
const OPEN_GATHER: Duration = Duration::from_micros(50);
const GATHERED_RATE: f64 = 25_000.0;
/// Between two looks for answers that do not come and connections to be made again.
const SWEEP: Duration = Duration::from_millis(100);
/// Longest wait for TCP to connect.
const TCP_DEADLINE: Duration = Duration::from_secs(5);
/// What a connection's socket is watched for, each time it changes: a socket that is read empty costs no second look.
const WATCHED: EventFlags =
    EventFlags::IN.union(EventFlags::OUT).union(EventFlags::RDHUP).union(EventFlags::ET);
/// Nothing is heard any more behind these: what was sent before is read to its end.
const LAST: EventFlags = EventFlags::RDHUP.union(EventFlags::HUP).union(EventFlags::ERR);

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
    let gather = gather(plan);
    loop {
        let now = Instant::now();
        pilot.tick(now);
        if now >= sweep {
            sockets.sweep(&mut pilot, now);
            sweep = now + SWEEP;
        }
        sockets.send(&mut pilot, now);
        if pilot.over(now) || stop.load(Ordering::Relaxed) {
            return Ok(pilot.finish());
        }
        let wake = pilot.wake().min(sweep);
        // After a batch that was full the next one is there.
        if !gather.is_zero() && sockets.events.len() < EVENTS {
            std::thread::sleep(gather.min(wake.saturating_duration_since(now)));
        }
        sockets.wait(wake.saturating_duration_since(Instant::now()))?;
        for event in 0..sockets.events.len() {
            let (number, flags) = sockets.event(event);
            sockets.ready(number, flags, &mut pilot);
        }
    }
}

/// How long events gather before they are looked at. A thread that is woken for every single answer spends as much on
/// being woken as on the answer, and so does the server that wakes it.
pub(super) fn gather(plan: &Drive) -> Duration {
    match plan.arrivals {
        Arrivals::Closed if plan.connections >= GATHERED_CONNECTIONS => CLOSED_GATHER,
        Arrivals::Open { rate: Rate::Constant(rate) | Rate::Ramp(_, rate), .. } if rate >= GATHERED_RATE => {
            OPEN_GATHER
        }
        _ => Duration::ZERO,
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
    /// What a socket gave; deciphered in place.
    received: Vec<u8>,
    /// What a socket is given.
    out: Out,
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
    tls: Option<Box<UnbufferedClientConnection>>,
    /// The beginning of a TLS record, or of a handshake message, whose rest has not come.
    partial: Vec<u8>,
    /// What the socket did not take; we hear of it when it does.
    unsent: Vec<u8>,
}

/// Bytes on their way out.
struct Out {
    /// Never shrinks, so that it is filled with zeros once.
    bytes: Vec<u8>,
    end: usize,
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
            received: vec![0; READ_BYTES],
            out: Out { bytes: vec![0; SEND_BYTES], end: 0 },
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
        epoll::add(&self.epoll, &line.stream, EventData::new_u64(number as u64), WATCHED)?;
        // The first message of the handshake.
        line.advance(&mut [], &[], &mut self.out, &mut connection.input, &mut connection.filled)?;
        line.write(self.out.take())?;
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
            for event in 0..self.events.len() {
                let (number, _) = self.event(event);
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

    /// The connection that an event is about, and what has happened.
    fn event(&self, event: usize) -> (usize, EventFlags) {
        let epoll::Event { flags, data, .. } = self.events[event];
        (data.u64() as usize, flags)
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
    fn send(&mut self, pilot: &mut Pilot<'_>, now: Instant) {
        for lane in 0..self.idle.len() {
            while pilot.waits(lane) {
                let Some(number) = self.idle[lane].pop() else { break };
                let connection = &mut self.connections[number];
                let (State::Idle, Some(line)) = (connection.state, &mut connection.line) else { continue };
                let Some(due) = pilot.take(lane, now, &mut connection.request) else { break };
                connection.state = State::Busy(due, now);
                let Connection { request, input, filled, .. } = connection;
                if line.send(&request.bytes, &mut self.out, input, filled).is_err() {
                    self.broken(number, "connection", pilot, now);
                }
            }
        }
    }

    /// Something has happened on a connection.
    fn ready(&mut self, number: usize, flags: EventFlags, pilot: &mut Pilot<'_>) {
        let mut now;
        loop {
            let read = self.read(number);
            now = Instant::now();
            match read {
                Ok(Read::Nothing) => break,
                Ok(Read::Ready) => {
                    let mut handshakes = Handshakes::default();
                    handshakes.count(self.shaken(number));
                    pilot.shaken(handshakes);
                }
                Ok(Read::Answer(found)) => self.answered(number, &found, pilot, now),
                Err(_) => {
                    self.broken(number, "connection", pilot, now);
                    break;
                }
            }
            // What comes later is another event; what came together with the end is not.
            if !flags.intersects(LAST) {
                break;
            }
        }
        // What has become due meanwhile goes out before the next event is looked at.
        pilot.release(now);
        self.send(pilot, now);
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
                line.close(&mut self.out);
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
        if !line.unsent.is_empty() {
            let unsent = std::mem::take(&mut line.unsent);
            line.write(&unsent)?;
        }
        loop {
            let left = line.partial.len();
            let room = &mut self.received[left..];
            let most = room.len();
            let read = match line.stream.read(room) {
                // Of no room too.
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(read) => read,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Read::Nothing),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            self.received[..left].copy_from_slice(&line.partial);
            line.partial.clear();
            let bytes = &mut self.received[..left + read];
            let Connection { input, filled, .. } = connection;
            let shaken = line.advance(bytes, &[], &mut self.out, input, filled)?;
            line.write(self.out.take())?;
            match connection.state {
                State::Shaking if shaken => return Ok(Read::Ready),
                State::Shaking => {}
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
            if read < most {
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
        // Always allowed. One that paces has timers for each request, which are the generator's time.
        let _ = sockopt::set_tcp_congestion(&stream, "reno");
        let tls = match &endpoint.tls {
            Some(tls) => {
                let connection = UnbufferedClientConnection::new(Arc::clone(tls), endpoint.name.clone());
                Some(Box::new(connection.map_err(io::Error::other)?))
            }
            None => None,
        };
        Ok(Self { stream, tls, partial: Vec::new(), unsent: Vec::new() })
    }

    /// Takes what the socket gave, which is deciphered in place and ends in `input`, and puts into `out` what TLS has to say and,
    /// once hands are shaken, the request. Whether they are.
    fn advance(
        &mut self,
        bytes: &mut [u8],
        request: &[u8],
        out: &mut Out,
        input: &mut Vec<u8>,
        filled: &mut usize,
    ) -> io::Result<bool> {
        let Some(tls) = &mut self.tls else {
            hear(bytes, input, filled);
            return Ok(true);
        };
        // What a connection that broke had to say is said on no other.
        out.end = 0;
        let mut taken = 0;
        loop {
            let UnbufferedStatus { mut discard, state } = tls.process_tls_records(&mut bytes[taken..]);
            let mut over = None;
            match state.map_err(io::Error::other)? {
                ConnectionState::ReadTraffic(mut traffic) => {
                    while let Some(record) = traffic.next_record() {
                        let record = record.map_err(io::Error::other)?;
                        discard += record.discard;
                        hear(record.payload, input, filled);
                    }
                    // Most often nothing follows: then there is nothing to be asked again.
                    over = (taken + discard == bytes.len()).then_some(true);
                }
                ConnectionState::EncodeTlsData(mut data) => {
                    let mut encoded = data.encode(out.room(0));
                    if let Err(EncodeError::InsufficientSize(size)) = &encoded {
                        encoded = data.encode(out.room(size.required_size));
                    }
                    out.end += encoded.map_err(io::Error::other)?;
                }
                // It leaves with the rest, before anything is read again.
                ConnectionState::TransmitTlsData(data) => data.done(),
                ConnectionState::WriteTraffic(mut traffic) => {
                    if !request.is_empty() {
                        let records = request.len().div_ceil(RECORD_BYTES) + 1;
                        let room = out.room(request.len() + records * RECORD_OVERHEAD);
                        out.end += traffic.encrypt(request, room).map_err(io::Error::other)?;
                    }
                    over = Some(true);
                }
                ConnectionState::BlockedHandshake => over = Some(false),
                // The socket's end follows.
                ConnectionState::PeerClosed | ConnectionState::Closed => {
                    discard = bytes.len() - taken;
                    over = Some(true);
                }
                _ => return Err(io::Error::new(ErrorKind::InvalidData, "an unknown state of TLS")),
            }
            taken += discard;
            if let Some(shaken) = over {
                self.partial.extend_from_slice(&bytes[taken..]);
                return Ok(shaken);
            }
        }
    }

    /// Sends a whole request.
    fn send(
        &mut self,
        request: &[u8],
        out: &mut Out,
        input: &mut Vec<u8>,
        filled: &mut usize,
    ) -> io::Result<()> {
        if self.tls.is_none() {
            return self.write(request);
        }
        self.advance(&mut [], request, out, input, filled)?;
        self.write(out.take())
    }

    /// Writes what the socket takes, and keeps the rest.
    fn write(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while self.unsent.is_empty() && !bytes.is_empty() {
            match self.stream.write(bytes) {
                Ok(written) => bytes = &bytes[written..],
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.unsent.extend_from_slice(bytes);
        Ok(())
    }

    /// Says that nothing more comes, as far as the socket takes it.
    fn close(&mut self, out: &mut Out) {
        let Some(tls) = &mut self.tls else { return };
        if let Ok(ConnectionState::WriteTraffic(mut traffic)) = tls.process_tls_records(&mut []).state
            && let Ok(bytes) = traffic.queue_close_notify(out.room(RECORD_OVERHEAD))
        {
            out.end += bytes;
            let _ = self.write(out.take());
        }
    }
}

impl Out {
    /// What is free, at least so much.
    fn room(&mut self, bytes: usize) -> &mut [u8] {
        room(&mut self.bytes, self.end + bytes);
        &mut self.bytes[self.end..]
    }

    /// What is to be sent; nothing is any more.
    fn take(&mut self) -> &[u8] {
        &self.bytes[..std::mem::take(&mut self.end)]
    }
}

/// What the server said to us ends in `input`.
fn hear(bytes: &[u8], input: &mut Vec<u8>, filled: &mut usize) {
    let end = *filled + bytes.len();
    room(input, end)[*filled..end].copy_from_slice(bytes);
    *filled = end;
}

/// The buffer, at least so long.
fn room(input: &mut Vec<u8>, bytes: usize) -> &mut [u8] {
    if input.len() < bytes {
        input.resize(bytes.next_power_of_two(), 0);
    }
    input
}
