#!/bin/sh
# Run the DICOM archive Orthanc on this machine for tests, with DICOMweb and nothing else:
#
#     Testing/Dicom/run_orthanc.sh install            install Debian's orthanc and orthanc-dicomweb, as root
#     Testing/Dicom/run_orthanc.sh start FOLDER       start it with all its files in FOLDER, and print its address
#     Testing/Dicom/run_orthanc.sh stop FOLDER        stop it and delete FOLDER
#
# It has a free port, answers programs on this machine alone, and is no service of the system. start exits with 77 if Orthanc is
# not installed.
set -eu

PLUGIN=/usr/share/orthanc/plugins/libOrthancDicomWeb.so

fail() {
    echo "run_orthanc.sh: $1" >&2
    exit "${2:-1}"
}

case "${1:-} ${2:+FOLDER}" in
"install ")
    apt-get update
    DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends orthanc orthanc-dicomweb
    # Debian starts a service, which these tests do not use
    if [ -d /run/systemd/system ]; then systemctl disable --now orthanc; fi
    ;;
"start FOLDER")
    command -v Orthanc >/dev/null && [ -e "$PLUGIN" ] ||
        fail "Orthanc with DICOMweb is not installed. Run Testing/Dicom/run_orthanc.sh install as root." 77
    mkdir -p "$2"
    folder=$(cd "$2" && pwd)
    [ ! -e "$folder/pid" ] || fail "$folder has an Orthanc already. Stop it first."
    for attempt in 1 2 3; do # another program may take the port meanwhile
        port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
        cat >"$folder/orthanc.json" <<END
{
  "Name": "ClassScaleSeg test",
  "StorageDirectory": "$folder/storage",
  "IndexDirectory": "$folder/storage",
  "Plugins": ["$PLUGIN"],
  "HttpPort": $port,
  "RemoteAccessAllowed": false,
  "AuthenticationEnabled": false,
  "DicomServerEnabled": false,
  "ConcurrentJobs": 1,
  "DicomWeb": {"Enable": true, "Root": "/dicom-web/"}
}
END
        Orthanc "$folder/orthanc.json" >"$folder/log" 2>&1 &
        pid=$!
        echo "$pid" >"$folder/pid"
        for wait in $(seq 100); do
            kill -0 "$pid" 2>/dev/null || break
            if python3 -c "import urllib.request as u; u.urlopen('http://127.0.0.1:$port/system', timeout=1)" 2>/dev/null
            then
                echo "http://127.0.0.1:$port/dicom-web"
                exit 0
            fi
            sleep 0.1
        done
        kill "$pid" 2>/dev/null || true
    done
    rm -f "$folder/pid"
    fail "Orthanc did not start. Its log is $folder/log."
    ;;
"stop FOLDER")
    [ -e "$2/pid" ] || fail "$2 has no Orthanc."
    pid=$(cat "$2/pid")
    kill "$pid" 2>/dev/null || true
    for wait in $(seq 100); do
        kill -0 "$pid" 2>/dev/null || break
        sleep 0.1
    done
    rm -rf "$2/storage" "$2/orthanc.json" "$2/log" "$2/pid"
    rmdir "$2" 2>/dev/null || true
    ;;
*)
    sed -n '2,9s/^# \{0,1\}//p' "$0" >&2
    exit 2
    ;;
esac
