//! The web server of every tool: one thread, without any capability, that answers GET and HEAD and is to
//! be exposed to anybody who can reach it.
//!
//! The thread that binds the address needs what that takes (a low port, the namespace); a listener stays
//! in the network namespace in which it was bound. What talks to strangers has nothing to give away.
//!
//! What a stranger can do is bounded: see [`Limits`]. Whoever takes too long, to ask or to take the answer,
//! is cut. When all places are taken, a newcomer gets that of somebody else, from the peer that has the
//! most of them: nobody is kept out, and nobody can be driven out by one peer alone.

mod crowd;
mod holder;
mod host;
mod refusal;
mod wire;

use std::cell::RefCell;
use std::convert::Infallible;
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::mpsc;
use std::task::{Context as Polled, Poll, ready};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, Request, Response, header};
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use nix::errno::Errno;
use nix::sys::socket::{Backlog, listen, setsockopt, sockopt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::LocalSet;

use crate::Failure;
use crate::privilege::{self, Scope};
use crowd::{Crowd, Place};
pub use host::HostName;
use host::Hosts;
#[doc(hidden)]
pub use host::is_allowed;
use refusal::Refusal;
use wire::{Valve, Wire};

/// Bytes of a request's line and headers, and of what waits in user space to be sent beyond the one piece
/// that a handler has just made: handlers make pieces of about this size.
const HEAD: usize = 8 * 1024;
/// Header lines of a request.
const HEADERS: usize = 64;
/// Bytes that the kernel holds for a reader, who may be slow (the kernel itself doubles the figure).
const SEND_BUFFER: usize = 128 * 1024;
/// Connections that the kernel has made and nobody has accepted yet.
const WAITING: i32 = 2048;
/// How long nobody is let in when the machine has run out of something.
const PAUSE: Duration = Duration::from_millis(100);

/// What one server grants.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Connections at a time.
    pub connections: usize,
    /// How long a request may take to come, from the first byte or from the end of the answer before.
    pub head: Duration,
    /// How long a reader may take nothing of what there is for him. The kernel says that there is room
    /// again when a third of its buffer is free, so this asks for some 4 kB/s.
    pub stalled: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            connections: 256,
            head: Duration::from_secs(10),
            stalled: Duration::from_secs(10),
        }
    }
}

/// How a server is to behave.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Names, besides localhost and this host's own, by which a browser may call it.
    pub allow_hosts: Vec<HostName>,
    /// What it grants.
    pub limits: Limits,
}

/// An address that is ours, where connections wait until [`Listening::serve`] takes them.
#[derive(Debug)]
pub struct Listening {
    listener: TcpListener,
    address: SocketAddr,
}

/// Binds an address in the network namespace of the calling thread.
pub fn bind(address: SocketAddr) -> Result<Listening> {
    let listener = TcpListener::bind(address).map_err(|error| refused(address, &error))?;
    let prepare = || -> io::Result<SocketAddr> {
        listener.set_nonblocking(true)?;
        // Accepted connections inherit it. Without a bound the kernel would hold megabytes for each.
        setsockopt(&listener, sockopt::SndBuf, &SEND_BUFFER)?;
        // The standard library lets 128 wait; whoever comes when as many do tries again a second later.
        listen(&listener, Backlog::new(WAITING)?)?;
        listener.local_addr()
    };
    let address = prepare().with_context(|| format!("listen on {address}"))?;
    Ok(Listening { listener, address })
}

fn refused(address: SocketAddr, error: &io::Error) -> anyhow::Error {
    let (host, port) = (address.ip(), address.port());
    let errno = Errno::from_raw(error.raw_os_error().unwrap_or_default());
    let failure = match errno {
        Errno::EADDRINUSE => {
            let holder = holder::of(address).map_or_else(
                || " by another process".to_owned(),
                |holder| format!(" by {holder}"),
            );
            Failure::Conflict(format!(
                "port {port} of {host} is taken{holder}; end that or choose another port"
            ))
        }
        Errno::EADDRNOTAVAIL => Failure::Usage(format!(
            "cannot listen on {address}: no interface here has the address {host}"
        )),
        Errno::EAFNOSUPPORT => Failure::Usage(format!(
            "cannot listen on {address}: this host has no IPv6; choose an IPv4 address"
        )),
        // A link-local address, for example, of which nobody said where.
        Errno::EINVAL => {
            Failure::Usage(format!("cannot listen on {address}: no such address here"))
        }
        Errno::EACCES => Failure::Privilege(format!(
            "cannot listen on {address}: port {port} needs CAP_NET_BIND_SERVICE; choose one above 1023"
        )),
        _ => return anyhow!("listen on {address}: {error}"),
    };
    failure.into()
}

impl Listening {
    /// The address, with the port that the kernel chose where 0 was asked for.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Starts the thread that answers. It does when this returns.
    pub fn serve(self, router: Router, options: Options) -> Result<Server> {
        let hosts = Hosts::new(options.allow_hosts);
        let (stop, stopped) = oneshot::channel();
        let (tell, told) = mpsc::channel();
        let address = self.address;
        let thread = thread::Builder::new()
            .name("http".into())
            .spawn(move || {
                let ready = privilege::drop_all(Scope::Thread).and_then(|()| {
                    let mut runtime = tokio::runtime::Builder::new_current_thread();
                    runtime.enable_io().enable_time();
                    Ok(runtime.build()?)
                });
                let (runtime, answer) = match ready {
                    Ok(runtime) => (Some(runtime), Ok(())),
                    Err(error) => (None, Err(error)),
                };
                // Who asked waits for the answer, and gets no second one.
                let _ = tell.send(answer);
                let Some(runtime) = runtime else {
                    return Ok(());
                };
                let shared = Rc::new(Shared {
                    router: TowerToHyperService::new(router),
                    hosts,
                    limits: options.limits,
                    crowd: Rc::new(RefCell::new(Crowd::new(options.limits.connections))),
                });
                let set = LocalSet::new();
                set.block_on(&runtime, run(self.listener, shared, stopped))
                // Dropping the set cuts all connections.
            })
            .context("start a thread for the web server")?;
        let server = Server {
            stop: Some(stop),
            thread: Some(thread),
            address,
        };
        told.recv()
            .context("the web server's thread has gone")?
            .context("start the web server")?;
        Ok(server)
    }
}

/// A server at work. Dropping it ends the thread at once and cuts all connections.
#[derive(Debug)]
pub struct Server {
    /// `None` once the end has been asked for.
    stop: Option<oneshot::Sender<()>>,
    /// `None` once it has ended.
    thread: Option<JoinHandle<Result<()>>>,
    address: SocketAddr,
}

impl Server {
    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// To be called now and then: an error if the server has ended before its time.
    pub fn check(&mut self) -> Result<()> {
        match self.thread.take_if(|thread| thread.is_finished()) {
            Some(thread) => Err(match thread.join() {
                Ok(Err(error)) => error.context("the web server has stopped"),
                Ok(Ok(())) => anyhow!("the web server has stopped"),
                Err(_) => anyhow!("the web server has stopped: its thread panicked"),
            }),
            None => Ok(()),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            // What it ended by concerns nobody any more.
            let _ = thread.join();
        }
    }
}

/// What all connections of a server have in common.
struct Shared {
    router: TowerToHyperService<Router>,
    hosts: Hosts,
    limits: Limits,
    crowd: Rc<RefCell<Crowd>>,
}

/// Answers until the end is asked for.
async fn run(
    listener: TcpListener,
    shared: Rc<Shared>,
    stopped: oneshot::Receiver<()>,
) -> Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener).context("listen")?;
    let (mut stopped, mut accepting) = (pin!(stopped), pin!(accept(listener, shared)));
    std::future::poll_fn(|cx| match stopped.as_mut().poll(cx) {
        Poll::Ready(_) => Poll::Ready(()),
        Poll::Pending => accepting.as_mut().poll(cx),
    })
    .await;
    Ok(())
}

async fn accept(listener: tokio::net::TcpListener, shared: Rc<Shared>) {
    loop {
        let accepted = listener.accept().await;
        match accepted {
            Ok((stream, peer)) => {
                let place = Crowd::admit(&shared.crowd, peer.ip());
                let task = converse(stream, Rc::clone(&shared), Rc::clone(&place));
                place.is_held_by(tokio::task::spawn_local(task).abort_handle());
                // Whoever has come in is looked at before somebody else can take the place.
                tokio::task::yield_now().await;
            }
            Err(error) if is_the_peers(&error) => {}
            // Out of descriptors or memory: somebody has to go, and the rest wait.
            Err(_) => {
                shared.crowd.borrow_mut().make_room();
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// Whether it concerns nobody but the one who was about to come in.
fn is_the_peers(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset | ErrorKind::Interrupted
    )
}

async fn converse(stream: TcpStream, shared: Rc<Shared>, place: Rc<Place>) {
    // Events are small and shall not wait for an acknowledgement; without it they do, no more.
    let _ = stream.set_nodelay(true);
    // A peer that has vanished acknowledges nothing; without it the kernel gives up after a quarter of an hour.
    let patience = 2 * shared.limits.stalled.as_millis();
    let patience = u32::try_from(patience).unwrap_or(u32::MAX);
    let _ = setsockopt(&stream, sockopt::TcpUserTimeout, &patience);
    let (limits, valve) = (shared.limits, Rc::<Valve>::default());
    let wire = Wire::new(stream, Rc::clone(&valve), limits.stalled);
    let service = service_fn(|request| {
        let (busy, valve) = (place.begin(), Rc::clone(&valve));
        let shared = Rc::clone(&shared);
        Box::pin(async move {
            let response = answer(&shared, request).await;
            Ok::<_, Infallible>(response.map(|body| Answer {
                body,
                valve,
                is_to_be_sent: false,
                _busy: busy,
            }))
        })
    });
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head)
        .max_header_size(HEAD)
        .max_headers(HEADERS)
        .max_buf_size(HEAD)
        .serve_connection(TokioIo::new(wire), service);
    // How it ended makes no difference: hyper has said to the peer what there was to say.
    let _ = std::future::poll_fn(|cx| connection.poll_without_shutdown(cx)).await;
    connection.into_parts().io.into_inner().part().await;
}

async fn answer(shared: &Shared, request: Request<Incoming>) -> Response<Body> {
    let mut response = match refusal::of(&request, &shared.hosts) {
        Some(refusal) => refusal.into_response(),
        None => match shared.router.call(request.map(Body::new)).await {
            Ok(response) => Refusal::spelled_out(response),
        },
    };
    for (name, value) in [
        // No page of ours loads anything unless it says so itself, in a header of its own.
        (
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        ),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-store"),
    ] {
        let headers = response.headers_mut();
        headers
            .entry(name)
            .or_insert(HeaderValue::from_static(value));
    }
    let isolated = HeaderValue::from_static("same-origin");
    let headers = response.headers_mut();
    headers.insert("cross-origin-resource-policy", isolated);
    response
}

/// An answer on its way; its connection is busy until it has been passed on.
struct Answer {
    body: Body,
    valve: Rc<Valve>,
    /// The last piece is to be offered to the reader before the next one is made.
    is_to_be_sent: bool,
    _busy: crowd::Busy,
}

impl hyper::body::Body for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Polled<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if std::mem::take(&mut self.is_to_be_sent) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        ready!(self.valve.poll_open(cx));
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        self.is_to_be_sent = frame.is_some();
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
