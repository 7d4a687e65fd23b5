//! A TCP proxy on loopback that can cut, pause and resume what runs through it.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, split},
    net::{TcpListener, TcpStream, UnixStream},
    sync::watch,
    task::JoinHandle,
};

/// Where the proxy leads.
#[derive(Clone, Debug)]
pub enum Upstream {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

#[derive(Clone, Copy, Debug, Default)]
struct Flow {
    paused: bool,
    refusing: bool,
    /// How often connections were cut: each one ends when this changes.
    cuts: u64,
}

/// The proxy; it ends when dropped.
pub struct Proxy {
    address: SocketAddr,
    flow: watch::Sender<Flow>,
    accepting: JoinHandle<()>,
}

impl Proxy {
    pub async fn start(upstream: Upstream) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (flow, watched) = watch::channel(Flow::default());
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(serve(client, upstream.clone(), watched.clone()));
            }
        });
        Self { address, flow, accepting }
    }

    /// Where clients connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends every connection and refuses new ones until `resume`.
    pub fn cut(&self) {
        self.flow.send_modify(|flow| {
            flow.cuts += 1;
            flow.refusing = true;
        });
    }

    /// Refuses new connections until `resume`; those that are there stay.
    pub fn refuse(&self) {
        self.flow.send_modify(|flow| flow.refusing = true);
    }

    /// Ends every connection; new ones pass.
    pub fn cut_once(&self) {
        self.flow.send_modify(|flow| flow.cuts += 1);
    }

    /// Lets nothing pass until `resume`; connections stay, as if the network were slow.
    pub fn pause(&self) {
        self.flow.send_modify(|flow| flow.paused = true);
    }

    /// Lets everything pass again.
    pub fn resume(&self) {
        self.flow.send_modify(|flow| {
            flow.paused = false;
            flow.refusing = false;
        });
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
        self.cut();
    }
}

async fn serve(client: TcpStream, upstream: Upstream, flow: watch::Receiver<Flow>) {
    let begun = *flow.borrow();
    if begun.refusing {
        return;
    }
    // It ends when either side does; whose fault that was is the test's business.
    let _ = match upstream {
        Upstream::Tcp(address) => match TcpStream::connect(address).await {
            Ok(server) => join(client, server, flow, begun.cuts).await,
            Err(error) => Err(error),
        },
        Upstream::Unix(path) => match UnixStream::connect(path).await {
            Ok(server) => join(client, server, flow, begun.cuts).await,
            Err(error) => Err(error),
        },
    };
}

async fn join<S: AsyncRead + AsyncWrite>(
    client: TcpStream,
    server: S,
    flow: watch::Receiver<Flow>,
    cuts: u64,
) -> io::Result<()> {
    let (client_in, client_out) = split(client);
    let (server_in, server_out) = split(server);
    let mut watched = flow.clone();
    tokio::select! {
        result = copy(client_in, server_out, flow.clone()) => result,
        result = copy(server_in, client_out, flow) => result,
        _ = watched.wait_for(|flow| flow.cuts != cuts) => Ok(()),
    }
}

async fn copy(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut flow: watch::Receiver<Flow>,
) -> io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let count = from.read(&mut buffer).await?;
        if count == 0 || flow.wait_for(|flow| !flow.paused).await.is_err() {
            return Ok(());
        }
        to.write_all(&buffer[..count]).await?;
    }
}
