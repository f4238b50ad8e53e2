//! When what is sent, and what is counted: the part of a run that knows no sockets.

use std::collections::VecDeque;
use std::iter::Peekable;
use std::ops::Range;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use super::schedule::Schedule;
use super::{
    ANSWER_DEADLINE, Answer, Drive, Event, Handshakes, Kind, Outcome, Request, Row, Ticket, Workload,
    new_histogram,
};
use crate::process;

/// A slot that is sent later than this has missed its moment.
const IN_TIME: Duration = Duration::from_millis(1);
/// Between two rows.
const ROW: Duration = Duration::from_secs(1);

/// A request that was due.
#[derive(Clone, Copy)]
pub(super) struct Due {
    pub(super) ticket: Ticket,
    /// What its latency counts from.
    begun: Instant,
}

#[derive(PartialEq)]
enum Stage {
    WarmUp,
    Measured,
    Over,
}

pub(super) struct Pilot<'a> {
    workload: &'a mut dyn Workload,
    events: Sender<Event>,
    core: Option<usize>,
    start: Instant,
    window: Range<Instant>,
    stage: Stage,
    /// `None` in the closed loop.
    schedule: Option<Peekable<Schedule>>,
    /// Due and not sent, by lane.
    pending: Vec<VecDeque<Due>>,
    waiting: usize,
    under_way: usize,
    row: Tally,
    /// Processor seconds of this thread, and of the processor, when the measured time began.
    used: (f64, Option<f64>),
    outcome: Outcome,
}

/// What came since a row began.
struct Tally {
    began: Instant,
    answers: u64,
    errors: u64,
    latency: Histogram<u64>,
}

impl<'a> Pilot<'a> {
    /// The run begins now, with so many requests under way if it is a closed loop.
    pub(super) fn start(
        plan: &Drive,
        workload: &'a mut dyn Workload,
        events: Sender<Event>,
        closed: usize,
    ) -> Self {
        let start = Instant::now();
        let window = start + plan.warm_up..start + plan.warm_up + plan.duration;
        let kinds = (0..workload.kinds()).map(|_| Kind { answers: 0, latency: new_histogram() }).collect();
        // Equal plans give equal schedules.
        let schedule = Schedule::new(plan.arrivals, plan.warm_up, plan.duration, 1).map(Iterator::peekable);
        let mut pilot = Self {
            workload,
            events,
            core: plan.core,
            start,
            window,
            stage: Stage::WarmUp,
            schedule,
            pending: plan.endpoints.iter().map(|_| VecDeque::new()).collect(),
            waiting: 0,
            under_way: 0,
            row: Tally { began: start, answers: 0, errors: 0, latency: new_histogram() },
            used: (0.0, None),
            outcome: Outcome {
                duration: plan.duration,
                answers: 0,
                all_answers: 0,
                scheduled: 0,
                missed: 0,
                errors: Default::default(),
                latency: new_histogram(),
                kinds,
                lateness: new_histogram(),
                rows: Vec::new(),
                handshakes: Handshakes::default(),
                generator_cpu: 0.0,
                core_busy: None,
            },
        };
        if pilot.schedule.is_none() {
            (0..closed).for_each(|_| pilot.push(start));
        }
        pilot
    }

    /// Does what is due: begins and ends the measured time, ends rows, makes slots due.
    pub(super) fn tick(&mut self, now: Instant) {
        if self.stage == Stage::WarmUp && now >= self.window.start {
            self.end_row(now);
            self.stage = Stage::Measured;
            self.used = self.usage();
            self.tell(Event::Began);
        }
        if self.stage == Stage::Measured && now >= self.window.end {
            self.end_row(now);
            self.stage = Stage::Over;
            let measured = now.duration_since(self.window.start).as_secs_f64();
            let (cpu, core) = self.usage();
            self.outcome.generator_cpu = (cpu - self.used.0) / measured;
            self.outcome.core_busy = core.zip(self.used.1).map(|(after, before)| (after - before) / measured);
            self.tell(Event::Ended);
            if self.schedule.is_none() {
                self.pending.iter_mut().for_each(VecDeque::clear);
                self.waiting = 0;
            }
        }
        if self.stage != Stage::Over && now.duration_since(self.row.began) >= ROW {
            self.end_row(now);
        }
        self.release(now);
    }

    /// Makes slots due whose moment has come.
    pub(super) fn release(&mut self, now: Instant) {
        while let Some(slot) = self.next_slot().filter(|slot| *slot <= now) {
            if let Some(schedule) = &mut self.schedule {
                schedule.next();
            }
            if slot >= self.window.start {
                self.outcome.scheduled += 1;
                self.outcome.lateness.saturating_record(micros(now.duration_since(slot)));
            }
            self.push(slot);
        }
    }

    fn next_slot(&mut self) -> Option<Instant> {
        self.schedule.as_mut()?.peek().map(|moment| self.start + *moment)
    }

    fn push(&mut self, begun: Instant) {
        let ticket = self.workload.draw();
        if let Some(lane) = self.pending.get_mut(ticket.lane) {
            lane.push_back(Due { ticket, begun });
            self.waiting += 1;
        }
    }

    /// Whether something waits to be sent in a lane.
    pub(super) fn waits(&self, lane: usize) -> bool {
        self.pending.get(lane).is_some_and(|pending| !pending.is_empty())
    }

    /// The moment at which [`Self::tick`] has something to do.
    pub(super) fn wake(&mut self) -> Instant {
        let edge = match self.stage {
            Stage::WarmUp => self.window.start.min(self.row.began + ROW),
            Stage::Measured => self.window.end.min(self.row.began + ROW),
            Stage::Over => self.window.end + ANSWER_DEADLINE,
        };
        self.next_slot().map_or(edge, |slot| slot.min(edge))
    }

    /// Takes the next request of a lane and writes it; it is under way from now on.
    pub(super) fn take(&mut self, lane: usize, now: Instant, request: &mut Request) -> Option<Due> {
        let mut due = self.pending.get_mut(lane)?.pop_front()?;
        self.waiting -= 1;
        self.under_way += 1;
        if self.schedule.is_none() {
            due.begun = now;
        } else if due.begun >= self.window.start && now > due.begun + IN_TIME {
            self.outcome.missed += 1;
        }
        request.bytes.clear();
        request.head_bytes = 0;
        self.workload.write(due.ticket, request);
        Some(due)
    }

    /// An answer has come.
    pub(super) fn answered(&mut self, due: Due, now: Instant, request: &Request, answer: Answer<'_>) {
        match self.workload.judge(due.ticket, request, answer) {
            Ok(()) => {
                self.outcome.all_answers += 1;
                let latency = micros(now.duration_since(due.begun));
                self.row.answers += 1;
                self.row.latency.saturating_record(latency);
                let counted = if self.schedule.is_none() { now } else { due.begun };
                if self.window.contains(&counted)
                    && let Some(kind) = self.outcome.kinds.get_mut(due.ticket.kind)
                {
                    kind.answers += 1;
                    kind.latency.saturating_record(latency);
                }
            }
            Err(cause) => self.error(&cause, 1),
        }
        self.followed(now);
    }

    /// No answer came.
    pub(super) fn failed(&mut self, cause: &str, now: Instant) {
        self.error(cause, 1);
        self.followed(now);
    }

    /// Counts what is no answer to a request.
    pub(super) fn error(&mut self, cause: &str, count: u64) {
        self.row.errors += count;
        match self.outcome.errors.get_mut(cause) {
            Some(counted) => *counted += count,
            None => {
                self.outcome.errors.insert(cause.to_owned(), count);
            }
        }
    }

    /// A request is not under way any more; in the closed loop the next one follows.
    fn followed(&mut self, now: Instant) {
        self.under_way -= 1;
        if self.schedule.is_none() && now < self.window.end {
            self.push(now);
        }
    }

    pub(super) fn shaken(&mut self, handshakes: Handshakes) {
        self.outcome.handshakes.full += handshakes.full;
        self.outcome.handshakes.resumed += handshakes.resumed;
    }

    /// Whether nothing is left to be sent or waited for.
    pub(super) fn over(&mut self, now: Instant) -> bool {
        self.stage == Stage::Over
            && ((self.next_slot().is_none() && self.waiting == 0 && self.under_way == 0)
                || now >= self.window.end + ANSWER_DEADLINE)
    }

    /// Sums up.
    pub(super) fn finish(mut self) -> Outcome {
        // A request that was due and never sent or answered is no answer, and hiding it would flatter the rest.
        let unsent = self.waiting as u64 + self.schedule.take().map_or(0, |rest| rest.count() as u64);
        for (cause, count) in [("unsent", unsent), ("late", self.under_way as u64)] {
            if count > 0 {
                self.error(cause, count);
            }
        }
        let mut outcome = self.outcome;
        for kind in &outcome.kinds {
            outcome.answers += kind.answers;
            // Both have the same bounds.
            let _ = outcome.latency.add(&kind.latency);
        }
        outcome
    }

    fn end_row(&mut self, now: Instant) {
        let seconds = now.duration_since(self.row.began).as_secs_f64();
        if seconds > 0.0 {
            let ms = |micros: u64| micros as f64 / 1e3;
            let latency = &self.row.latency;
            let since_window = now.saturating_duration_since(self.window.start).as_secs_f64()
                - self.window.start.saturating_duration_since(now).as_secs_f64();
            let row = Row {
                at: since_window,
                answers_a_second: self.row.answers as f64 / seconds,
                errors: self.row.errors,
                p50: ms(latency.value_at_quantile(0.5)),
                p99: ms(latency.value_at_quantile(0.99)),
                max: ms(latency.max()),
            };
            self.tell(Event::Second(row));
            if self.stage == Stage::Measured {
                self.outcome.rows.push(row);
            }
        }
        self.row.latency.reset();
        (self.row.began, self.row.answers, self.row.errors) = (now, 0, 0);
    }

    fn usage(&self) -> (f64, Option<f64>) {
        (process::thread_seconds(), self.core.and_then(|core| process::core_busy_seconds(core).ok()))
    }

    fn tell(&self, event: Event) {
        // Nobody listens any more when the run is being stopped.
        let _ = self.events.send(event);
    }
}

pub(super) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
