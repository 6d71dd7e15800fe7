//! rspamd 3.4 as a milter that checks SPF, DKIM and DMARC, and posts what it finds to the guard.

use std::net::{SocketAddr, TcpStream};

use crate::claim::Port;
use crate::servers::{Instance, shipped};
use crate::wait::until;

pub struct Rspamd {
    /// Given up last.
    _instance: Instance,
    _milter: Port,
}

impl Rspamd {
    /// A milter on this port, which asks this DNS and posts to this tap as the shipped file says.
    pub fn start(milter: Port, dns: SocketAddr, tap: SocketAddr) -> Self {
        let mut instance = Instance::new("rspamd", &[]);
        instance.make_folder("db", None, 0o700);
        // Why not its own list: reading all of it takes rspamd many seconds.
        instance.write("tld", "com\nexample\n");
        let exporter =
            shipped("rspamd/metadata_exporter.conf", &[("127.0.0.1:10028", &tap.to_string())]);
        instance.write("metadata_exporter.conf", &exporter);
        let folder = instance.inside("");
        let port = milter.number();
        let file = format!(
            "options {{
  pidfile = \"{folder}rspamd.pid\";
  filters = \"dkim\";
  dns {{ nameserver = [\"{dns}\"]; timeout = 5s; }}
  url_tld = \"{folder}tld\";
  cache_file = \"{folder}db/symbols.cache\";
  hs_cache_dir = \"{folder}db/\";
  control_socket = \"{folder}db/rspamd.sock mode=0600\";
  disable_hyperscan = true;
  history_rows = 0;
}}
logging {{ type = \"console\"; level = \"info\"; }}
worker \"rspamd_proxy\" {{
  bind_socket = \"127.0.0.1:{port}\";
  milter = yes;
  count = 1;
  upstream \"local\" {{ default = yes; self_scan = yes; }}
}}
modules {{
  path = \"/usr/share/rspamd/plugins/spf.lua\";
  path = \"/usr/share/rspamd/plugins/dmarc.lua\";
  path = \"/usr/share/rspamd/plugins/metadata_exporter.lua\";
}}
spf {{ }}
dkim {{ }}
dmarc {{ }}
metadata_exporter {{
  .include \"{folder}metadata_exporter.conf\"
}}
"
        );
        instance.write("rspamd.conf", &file);
        let configuration = instance.inside("rspamd.conf");
        let arguments = ["-i", "-f", "-c", configuration.as_str()];
        instance.start("/usr/bin/rspamd", &arguments, &[]);
        until("rspamd to listen", || TcpStream::connect(milter.address()).ok().map(drop));
        Self { _instance: instance, _milter: milter }
    }
}
