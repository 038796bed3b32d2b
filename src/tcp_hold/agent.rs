//! `tcp_hold agent SOCKET`: holds the sockets of programs in any language, which need no privilege for it. What
//! they say to each other is in docs/tcp_hold_agent.md, byte by byte.

mod client;
mod metrics;
#[doc(hidden)] // fuzzing reads packets of its own
pub mod protocol;
mod served;
mod server;

use std::mem::MaybeUninit;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Args;

use super::holder::{Holder, Setup};
use crate::Failure;
use crate::ending::ending;
use crate::failure::say;
use crate::metrics::{Address, Exporter};
use crate::netlink::{LinkWatch, Netlink};
use crate::options::Attach;
use crate::port::{self, Port};
use crate::preflight;
use crate::privilege::{self, Cap, Scope};
use crate::rate;
use crate::session::{Options, Session};
use metrics::figures;
use served::Served;
use server::Server;

/// What the kernel asks for; CAP_PERFMON because the verifier lets nobody else add a variable to a packet pointer.
pub const NEEDED: &[Cap] = &[Cap::Bpf, Cap::Perfmon, Cap::NetAdmin];

/// Holds connections of other programs, which pass their sockets on to this agent.
#[derive(Args, Clone, Debug)]
pub struct AgentArguments {
    /// The unix socket to make, by which programs come
    pub socket: PathBuf,

    /// The interfaces by which their packets leave (names or globs)
    #[arg(long, value_name = "IF", num_args = 1.., required = true)]
    pub iface: Vec<String>,

    /// Who may use the socket: its file mode, octal
    #[arg(long, value_name = "MODE", default_value = "0660", value_parser = mode)]
    pub mode: u32,

    /// End by itself after this time
    #[arg(long, value_name = "TIME", value_parser = rate::seconds)]
    pub duration: Option<Duration>,

    /// How to attach
    #[arg(long, value_enum, default_value_t = Attach::Auto)]
    pub attach: Attach,

    /// Serve metrics to Prometheus (OpenMetrics) at this address, e.g. 127.0.0.1:9101 or [::1]:9101;
    /// without a host it is 127.0.0.1 [default: nowhere]
    #[arg(long, value_name = "ADDR")]
    pub metrics: Option<Address>,
}

fn mode(text: &str) -> Result<u32> {
    let mode = u32::from_str_radix(text, 8).context("a file mode is octal, 0660 for example")?;
    ensure!(mode <= 0o777, "a file mode is 0777 at most");
    Ok(mode)
}

/// Serves until a signal, Enter, or the end of its time. What is held then stays held, until its application ends.
pub fn run(arguments: &AgentArguments) -> Result<()> {
    let mut session = Session::start(Options {
        duration: arguments.duration,
        seconds: true, // to look after the guard, and to tell
        ..Options::default()
    })?;
    // It says dozens of lines where one is enough, which is ours.
    libbpf_rs::set_print(None);
    privilege::require(NEEDED)?;
    preflight::kernel_floor()?;
    let mut exporter = Exporter::bind("tcp_hold", arguments.metrics)?;
    let mut netlink = Netlink::open()?;
    let links = port::expand(&mut netlink, &arguments.iface)?;
    let ports = links
        .iter()
        .map(Port::try_from)
        .collect::<Result<Vec<_>>>()?;
    let mut object = MaybeUninit::uninit();
    let mut holder = Holder::load(&Setup::default(), &mut object)?;
    session.check()?;
    let mut watch = LinkWatch::over(&links)?;
    holder.attach(arguments.attach.method(), &ports)?;
    let served = Arc::new(Served::default());
    let server = Server::open(&arguments.socket, arguments.mode, holder.holds(), &served)?;
    // For another guard, should this one be killed.
    privilege::keep_only(&[Cap::Bpf, Cap::NetAdmin], Scope::Process)?;
    let mut guards = 0;
    exporter.serve(|| figures(&holder, &served, guards))?;
    say(format_args!("Holding for {}", arguments.socket.display()));

    let (running, ending) = ending()?;
    let waker = session.waker();
    thread::scope(|scope| {
        let serving = thread::Builder::new().name("agent".into());
        let serving = serving.spawn_scoped(scope, move || {
            // It has acknowledgements sent.
            let served = privilege::keep_after_attach(&[Cap::NetAdmin], Scope::Thread)
                .and_then(|()| server.serve(&ending));
            waker.wake();
            served
        });
        let serving = serving.context("start a thread")?;
        let ended = session.attend(&mut watch, |_| {
            ensure!(!serving.is_finished(), "the agent's thread has ended");
            if holder.guard_again()? {
                guards += 1;
                say(format_args!(
                    "another guard stands there: the one before was killed"
                ));
            }
            exporter.publish(|| figures(&holder, &served, guards))
        });
        drop(running);
        let served = serving.join();
        let served = served.map_err(|_| anyhow::anyhow!("the agent's thread has panicked"))?;
        served.and(ended).map(drop)
    })
}

/// What is wrong with a socket's name.
fn taken(path: &std::path::Path) -> Failure {
    Failure::Conflict(format!(
        "{} is there already, and in use or no socket: end its owner, or take another name",
        path.display()
    ))
}
