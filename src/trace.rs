//! `--trace-drops`: what a tool drops, as a pcapng file with the reason as each packet's comment. The program
//! tells of packets by a ring buffer (`src/bpf/trace.h`); a thread without capabilities writes them. What is left
//! out is counted: by the program what it did not tell of, by the thread what the file did not take.

mod file;
mod pcapng;
mod writer;

use std::collections::BTreeMap;
use std::os::fd::{BorrowedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc;
use std::thread::{Builder, JoinHandle};

use anyhow::{Context, Result, anyhow};
use clap::Args;
use libbpf_rs::{MapCore, MapFlags, MapHandle, RingBuffer, RingBufferBuilder};
use nix::poll::{PollFd, PollFlags};
use serde::Serialize;

use crate::Failure;
use crate::ending::{self, Ending, Running, Woken};
use crate::failure::say;
use crate::ground::{Ground, Record, Tracing};
use crate::map_value;
use crate::notation::grouped;
use crate::policer::{COST_SHIFT, UNITS_PER_NS};
use crate::port::Port;
use crate::preflight::LinkLayer;
use crate::privilege::{self, Scope};
use crate::rate::Size;
use crate::tc::Direction;
use file::Blocks;
use writer::Writer;

/// `TRACE_SNAP` of trace.h, and a tag that was in the metadata.
const SNAP: u32 = 256 + 4;
/// The options.
#[derive(Args, Clone, Debug)]
pub struct TraceArguments {
    /// Write what is dropped to this file (pcapng), each packet with the reason as its comment
    #[arg(long, value_name = "FILE")]
    pub trace_drops: Option<String>,

    /// Write one in so many of them
    #[arg(long, value_name = "N", default_value_t = 1, requires = "trace_drops",
          value_parser = clap::value_parser!(u32).range(1..))]
    pub trace_sample: u32,

    /// Write so many a second at most; 0: without a limit
    #[arg(
        long,
        value_name = "N",
        default_value_t = 1000,
        requires = "trace_drops"
    )]
    pub trace_rate: u32,

    /// Let the file grow to this size
    #[arg(
        long,
        value_name = "SIZE",
        default_value = "1gb",
        requires = "trace_drops"
    )]
    pub trace_size: Size,
}

impl TraceArguments {
    /// Of which packets the program is to tell.
    pub fn tracing(&self) -> Tracing {
        match self.trace_drops {
            Some(_) => Tracing::Drops {
                one_in: self.trace_sample,
            },
            None => Tracing::Nothing,
        }
    }

    /// Makes the file, before anything is loaded or attached; none: nobody has asked for one.
    pub fn create(&self) -> Result<Option<Trace>, Failure> {
        let Some(path) = &self.trace_drops else {
            return Ok(None);
        };
        Ok(Some(Trace {
            path: path.clone(),
            blocks: Blocks::create(path, self.trace_size.bytes())?,
            rate: self.trace_rate,
        }))
    }
}

/// A file that nothing has been written to.
#[derive(Debug)]
pub struct Trace {
    path: String,
    blocks: Blocks,
    rate: u32,
}

/// The maps of trace.h, in a loaded program.
#[derive(Debug)]
pub(crate) struct TraceMaps<'a, Map> {
    pub records: &'a Map,
    pub counts: MapHandle,
    pub limit: &'a Map,
}

/// Where the program stands.
#[derive(Debug)]
pub(crate) struct Standing<'a> {
    pub tool: &'static str,
    pub ports: &'a [Port],
    /// None: at both sides, and it does not know at which one it saw a packet.
    pub direction: Option<Direction>,
}

/// A file, a ring buffer, and what is needed to understand what comes by it; to be followed once capabilities are
/// dropped.
pub struct Ready {
    writer: Writer,
    records: RingBuffer<'static>,
    queue: mpsc::Receiver<Vec<u8>>,
    tally: Arc<Tally>,
}

/// What program and thread have counted.
#[derive(Debug)]
pub struct Tally {
    counts: MapHandle,
    written: AtomicU64,
    not_written: AtomicU64,
}

/// What became of what the program has dropped, in the file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Figures {
    /// Packets that were dropped, or would have been, as the kernel hands them over.
    pub seen: u64,
    /// In the file.
    pub written: u64,
    /// Left out by `--trace-sample`.
    pub not_sampled: u64,
    /// More than `--trace-rate` in a second.
    pub above_rate: u64,
    /// The ring buffer was full: this process did not keep up.
    pub no_room: u64,
    /// The file did not take them: the disk is full, or `--trace-size` is reached.
    pub not_written: u64,
}

impl Trace {
    /// Enters interfaces and limit into the maps, begins the file, and opens the ring buffer. Before the program is
    /// attached.
    pub(crate) fn ready<Map: MapCore>(
        mut self,
        maps: TraceMaps<'_, Map>,
        standing: &Standing<'_>,
        reason: impl Fn(&Ground) -> String + Send + 'static,
    ) -> Result<Ready> {
        let mut interfaces = BTreeMap::new();
        let comment = format!("dropped by {}", standing.tool);
        let mut begin = pcapng::section(standing.tool, &comment);
        for (port, number) in standing.ports.iter().zip(0..) {
            let key = port.ifindex.to_ne_bytes();
            let entered = map_value::clear_each(&maps.counts, &key);
            entered.with_context(|| format!("count what is dropped at {}", port.name))?;
            let link = match port.link_layer {
                LinkLayer::Ethernet => pcapng::ETHERNET,
                LinkLayer::Raw => pcapng::RAW,
            };
            begin.extend(pcapng::interface(&port.name, link, SNAP));
            interfaces.insert(port.ifindex, (number, link));
        }
        let limit = maps.limit.update(&[0; 4], &limit(self.rate), MapFlags::ANY);
        limit.context("limit what is told")?;
        let begun = self.blocks.append_last(&begin);
        begun.with_context(|| format!("write {}", self.path))?;

        let (sender, queue) = mpsc::channel();
        let mut builder = RingBufferBuilder::new();
        builder.add(maps.records, move |bytes| {
            // Its other end lives as long as the ring buffer.
            let _ = sender.send(bytes.to_vec());
            0
        })?;
        let tally = Arc::new(Tally {
            counts: maps.counts,
            written: AtomicU64::new(0),
            not_written: AtomicU64::new(0),
        });
        Ok(Ready {
            records: builder.build().context("open the ring buffer")?,
            queue,
            writer: Writer {
                path: self.path,
                blocks: self.blocks,
                interfaces,
                direction: match standing.direction {
                    None => 0,
                    Some(Direction::Ingress) => 1,
                    Some(Direction::Egress) => 2,
                },
                reason: Box::new(reason),
                tally: tally.clone(),
            },
            tally,
        })
    }
}

/// `struct bucket` of policer.h, of which a record is a byte: a second's worth may come at once. A rate of 0 is
/// none.
fn limit(rate: u32) -> Vec<u8> {
    const SECOND: u64 = 1_000_000_000 * UNITS_PER_NS;
    let cost = match rate {
        0 => 0,
        rate => (SECOND << COST_SHIFT).div_ceil(rate.into()),
    };
    let words = [0, cost, SECOND, 0, 0, 0, 0, 0];
    words
        .iter()
        .flat_map(|word: &u64| word.to_ne_bytes())
        .collect()
}

/// A thread that writes.
pub struct Following {
    // Dropped first: that asks the thread to end.
    running: Running,
    thread: JoinHandle<Writer>,
    tally: Arc<Tally>,
}

impl Ready {
    /// For reports.
    pub fn tally(&self) -> Arc<Tally> {
        self.tally.clone()
    }

    /// Writes from now on, in a thread that gives up every capability.
    pub fn follow(self) -> Result<Following> {
        let Ready {
            mut writer,
            records,
            queue,
            tally,
        } = self;
        let (running, ending) = ending::ending()?;
        let thread = Builder::new().name("trace".into()).spawn(move || {
            if let Err(error) = follow(&mut writer, &records, &queue, &ending) {
                say(format_args!(
                    "{} is not written any more: {error:#}",
                    writer.path
                ));
            }
            writer
        })?;
        Ok(Following {
            running,
            thread,
            tally,
        })
    }
}

fn follow(
    writer: &mut Writer,
    records: &RingBuffer<'_>,
    queue: &mpsc::Receiver<Vec<u8>>,
    ending: &Ending,
) -> Result<()> {
    privilege::drop_all(Scope::Thread)?;
    let descriptor: RawFd = records.epoll_fd();
    // SAFETY: the ring buffer has it open, and outlives this.
    let descriptor = unsafe { BorrowedFd::borrow_raw(descriptor) };
    loop {
        let mut ready = vec![PollFd::new(descriptor, PollFlags::POLLIN)];
        let woken = ending.wait(&mut ready, None)?;
        records.consume().context("read the ring buffer")?;
        for record in queue.try_iter() {
            writer.write(&Record::read(&record)?);
        }
        if woken == Woken::ToEnd {
            return Ok(());
        }
    }
}

impl Tally {
    /// What is counted so far.
    pub fn figures(&self) -> Result<Figures> {
        let mut figures = Figures {
            written: self.written.load(Relaxed),
            not_written: self.not_written.load(Relaxed),
            ..Figures::default()
        };
        for key in self.counts.keys() {
            figures.add(&counts_of(&self.counts, &key)?);
        }
        Ok(figures)
    }
}

impl Following {
    /// Writes what is left in the ring buffer, and closes the file with its statistics. The program has been
    /// detached.
    pub fn finish(self) -> Result<()> {
        drop(self.running);
        let writer = self.thread.join();
        let mut writer = writer.map_err(|_| anyhow!("the thread that writes has died"))?;
        let counts = &self.tally.counts;
        for key in counts.keys() {
            writer.conclude(&key, &counts_of(counts, &key)?);
        }
        say(format_args!("{}: {}", writer.path, self.tally.figures()?));
        Ok(())
    }
}

/// `struct trace_counts` of an interface, all CPUs together.
fn counts_of(map: &MapHandle, key: &[u8]) -> Result<[u64; 4]> {
    let values = map.lookup_percpu(key, MapFlags::ANY)?;
    let mut sums = [0; 4];
    for value in values.context("an interface is not counted any more")? {
        let (words, _) = value.as_chunks::<8>();
        for (sum, word) in sums.iter_mut().zip(words) {
            *sum += u64::from_ne_bytes(*word);
        }
    }
    Ok(sums)
}

impl Figures {
    fn add(&mut self, [seen, not_sampled, above_rate, no_room]: &[u64; 4]) {
        self.seen += seen;
        self.not_sampled += not_sampled;
        self.above_rate += above_rate;
        self.no_room += no_room;
    }
}

impl std::fmt::Display for Figures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} of {} packets written",
            grouped(self.written),
            grouped(self.seen)
        )?;
        for (count, why) in [
            (self.not_sampled, "by --trace-sample"),
            (self.above_rate, "by --trace-rate"),
            (self.no_room, "because the ring buffer was full"),
            (self.not_written, "because the file took no more"),
        ] {
            if count > 0 {
                write!(f, ", {} left out {why}", grouped(count))?;
            }
        }
        Ok(())
    }
}
