use super::*;

fn config(smtp_url: &str) -> Config {
    Config { smtp_url: Some(smtp_url.to_owned()), ..Config::new("postgres://x") }
}

fn kind(tls: &Tls) -> String {
    format!("{tls:?}")
}

#[test]
fn each_url_means_one_server() {
    for (url, host, port, tls) in [
        ("smtps://mail.example.org", "mail.example.org", 465, "Wrapper"),
        ("smtps://mail.example.org:2465/", "mail.example.org", 2465, "Wrapper"),
        ("smtp://mail.example.org", "mail.example.org", 587, "Required"),
        ("smtp://mail.example.org:25?tls=required", "mail.example.org", 25, "Required"),
        ("smtp://mail.example.org?tls=opportunistic", "mail.example.org", 587, "Opportunistic"),
        ("smtp://mail.example.org?tls=none", "mail.example.org", 587, "None"),
        ("smtp://localhost:1025", "localhost", 1025, "Opportunistic"),
        ("smtp://127.0.0.1:1025", "127.0.0.1", 1025, "Opportunistic"),
        ("smtp://[::1]:1025", "::1", 1025, "Opportunistic"),
        ("smtp://127.0.0.1:1025?tls=required", "127.0.0.1", 1025, "Required"),
        ("smtp://10.0.0.1", "10.0.0.1", 587, "Required"),
    ] {
        let server = server(&config(url)).expect("sound").expect("it is on");
        assert_eq!((server.host.as_str(), server.port, kind(&server.tls).as_str()), (host, port, tls), "{url}");
        assert!(server.credentials.is_none(), "{url}");
    }
    assert!(server(&Config::new("postgres://x")).expect("sound").is_none());
}

#[test]
fn users_and_passwords_are_decoded() {
    let server = server(&config("smtps://me%40example.org:a%3Ab%2Fc%25+d@mail")).expect("sound").expect("it is on");
    assert_eq!(server.credentials, Some(Credentials::new("me@example.org".to_owned(), "a:b/c%+d".to_owned())));
}

#[test]
fn a_malformed_setting_is_refused_by_its_name_and_never_shown() {
    for url in [
        "hidden",
        "http://user:hidden@mail",
        "smtps://",
        "smtp:hidden",
        "smtps://user:hidden@mail:notaport",
        "smtps://user:hidden@mail:0",
        "smtps://user:hidden@mail/inbox",
        "smtps://user:hidden@mail#x",
        "smtps://user:hidden@mail?tls=none",
        "smtp://user:hidden@mail?tls=maybe",
        "smtp://user:hidden@mail?tls",
        "smtp://user:hidden@mail?starttls=required",
        "smtp://user:hidden@mail?tls=none&tls=required",
        "smtps://hidden@mail",
        "smtps://:hidden@mail",
        "smtps://user:hidden%FF@mail",
        "smtps://user:hidden%00@mail",
    ] {
        let error = format!("{:#}", server(&config(url)).err().unwrap_or_else(|| panic!("{url} is taken")));
        assert!(error.contains("SMTP_URL") && !error.contains("hidden"), "{url}: {error}");
    }
    for from in
        ["", "P2PHub", "a@", "@b", "a@b\r\nBcc: c@d", "P2P\r\nBcc: c@d <a@b>", "ä@example.org", "a@ä.org", "a@b, c@d"]
    {
        let config = Config { smtp_from: from.to_owned(), ..Config::new("postgres://x") };
        let error = letterhead(&config).err().unwrap_or_else(|| panic!("{from} is taken"));
        assert!(format!("{error:#}").contains("SMTP_FROM"), "{from}: {error:#}");
    }
    for url in [
        "nowhere",
        "http://example.org/u",
        "mailto:a@b",
        "https://user:hidden@example.org/",
        "https://example.org/#token",
        &format!("https://example.org/{}", "x".repeat(500)),
    ] {
        let config = Config { unsubscribe_url: Some(url.to_owned()), ..Config::new("postgres://x") };
        let error = format!("{:#}", letterhead(&config).err().unwrap_or_else(|| panic!("{url} is taken")));
        assert!(error.contains("UNSUBSCRIBE_URL") && !error.contains("hidden"), "{url}: {error}");
    }
}

#[test]
fn a_file_without_certificates_is_refused_even_when_the_channel_is_off() {
    let directory = std::env::temp_dir().join(format!("p2phub-ca-{}", std::process::id()));
    let garbage = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    for content in [None, Some(""), Some("no PEM"), Some("-----BEGIN CERTIFICATE-----\n"), Some(garbage)] {
        let _ = fs::remove_file(&directory);
        if let Some(content) = content {
            fs::write(&directory, content).expect("a file");
        }
        let config = Config { smtp_ca_file: Some(directory.clone()), ..Config::new("postgres://x") };
        let error = server(&config).err().unwrap_or_else(|| panic!("{content:?} is taken"));
        assert!(format!("{error:#}").contains("SMTP_CA_FILE"), "{error:#}");
    }
    fs::remove_file(&directory).expect("it is there");
}
