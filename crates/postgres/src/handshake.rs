//! Whether a server takes connections, asked with a real connection attempt.
//!
//! The first message of PostgreSQL's wire protocol is enough: the server answers it with a request to
//! authenticate (ready) or with an error. No password is sent, and no SQL client is needed.
//! Source: PostgreSQL documentation, "Message Flow", start-up.

use std::{
    io::{self, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    time::Duration,
};

/// Protocol 3.0, which every supported version speaks.
const PROTOCOL: u32 = 3 << 16;
/// A local server answers within milliseconds; a loaded machine may take longer, and we ask again.
const PATIENCE: Duration = Duration::from_secs(2);
/// No start-up answer is longer; more means that somebody else listens there.
const LONGEST_ANSWER: usize = 10_000;

/// What listens on a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// A server that takes connections.
    Ready,
    /// A server that is starting, recovering or shutting down.
    NotNow,
    /// Nothing, or nothing that speaks the protocol.
    Nobody,
}

/// Asks the server on `port` of the loopback address.
pub(crate) fn ask(port: u16, user: &str) -> Answer {
    exchange(port, user).unwrap_or(Answer::Nobody)
}

/// Sends the start-up message and reads the first message that comes back.
fn exchange(port: u16, user: &str) -> io::Result<Answer> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(&startup_message(user))?;
    let mut head = [0; 5];
    stream.read_exact(&mut head)?;
    let [kind, length @ ..] = head;
    let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
    if !(4..=LONGEST_ANSWER).contains(&length) {
        return Ok(Answer::Nobody);
    }
    let mut body = vec![0; length - 4];
    stream.read_exact(&mut body)?;
    Ok(read_answer(kind, &body))
}

/// The start-up message: length, protocol, and pairs of zero-terminated strings.
fn startup_message(user: &str) -> Vec<u8> {
    let mut body = PROTOCOL.to_be_bytes().to_vec();
    for text in ["user", user, "database", "postgres"] {
        body.extend_from_slice(text.as_bytes());
        body.push(0);
    }
    body.push(0);
    let length = u32::try_from(body.len() + 4).unwrap_or(u32::MAX);
    [&length.to_be_bytes()[..], &body].concat()
}

/// Reads a message of type `kind`.
fn read_answer(kind: u8, body: &[u8]) -> Answer {
    match kind {
        // Class 57 is operator intervention: 57P03 while starting or stopping, 57P01 at the end.
        b'E' if sqlstate(body).is_some_and(|code| code.starts_with(b"57")) => Answer::NotNow,
        // A request to authenticate, or a refusal (too many connections, say) of a server that is up.
        b'R' | b'E' => Answer::Ready,
        _ => Answer::Nobody,
    }
}

/// The SQLSTATE of an error message: the field tagged `C` among zero-terminated fields.
fn sqlstate(body: &[u8]) -> Option<&[u8]> {
    body.split(|&byte| byte == 0).find_map(|field| field.strip_prefix(b"C"))
}

#[cfg(test)]
mod tests {
    use std::{net::TcpListener, thread};

    use super::*;

    #[test]
    fn authentication_request_means_ready() {
        assert_eq!(read_answer(b'R', &[0, 0, 0, 10]), Answer::Ready);
    }

    #[test]
    fn starting_server_is_not_ready_and_a_full_one_is() {
        let starting = b"SFATAL\0VFATAL\0C57P03\0Mthe database system is starting up\0\0";
        assert_eq!(read_answer(b'E', starting), Answer::NotNow);
        let full = b"SFATAL\0VFATAL\0C53300\0Msorry, too many clients already\0\0";
        assert_eq!(read_answer(b'E', full), Answer::Ready);
    }

    #[test]
    fn other_protocols_and_closed_ports_are_nobody() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap();
        });
        assert_eq!(ask(port, "tallylight"), Answer::Nobody);
        server.join().unwrap();
        assert_eq!(ask(port, "tallylight"), Answer::Nobody);
    }
}
