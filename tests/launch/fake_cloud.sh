#!/usr/bin/env bash
# Stands in for gcloud, xpk, kubectl, docker, sbatch, squeue, sacct, scancel: writes down each call and keeps
# a file for each thing that exists, in the folder $FAKE_CLOUD. FAKE_FAIL=N: call number N fails;
# FAKE_INTERRUPT=N: during it the caller gets Ctrl-C. A create that fails has created nonetheless.
# Zones: "nowhere" has no TPUs, "poor" no quota, "full" leaves requests in the queue, "broken" fails them.
set -u
call="${0##*/} $*"
printf '%s\n' "$call" >>"$FAKE_CLOUD/calls"
number=$(wc -l <"$FAKE_CLOUD/calls")
fails=$([[ $number == "${FAKE_FAIL-}" ]] && echo yes)
if [[ $number == "${FAKE_INTERRUPT-}" ]]; then kill -INT "$PPID"; fi

option() { grep -oE -- "--$1=[^ ]+" <<<"$call" | cut -d= -f2-; }
refuse() { printf 'ERROR: %s\n' "$1" >&2 && exit "${2-1}"; }
finish() { if [[ $fails ]]; then refuse 'the network went away'; fi && exit 0; }

things=$FAKE_CLOUD/things
# Whether there is a thing $1, and the call names the zone that it was asked for in.
exists() { [[ -f $things/$1 ]] && { [[ ! -f $FAKE_CLOUD/zone-$1 ]] || grep -qxF "$(option zone)" "$FAKE_CLOUD/zone-$1"; }; }
case $call in
  'gcloud storage buckets describe'*)
    if [[ $call == *gs://private* ]]; then
      refuse $'(gcloud) You do not currently have an active account selected.\nPlease run:\n
  $ gcloud auth login\n\nto select an already authenticated account to use.'
    fi
    [[ $call != *gs://missing* ]] || refuse 'gs://missing not found: 404.' ;;
  'gcloud compute tpus accelerator-types describe'*)
    [[ $call != *--zone=nowhere* ]] || refuse 'NOT_FOUND: Location nowhere is not found' ;;
  'gcloud compute tpus queued-resources create'*)
    [[ $call != *--zone=poor* ]] || refuse "Quota limit 'TPUV6EPerProjectPerZone' has been exceeded."
    option zone >"$FAKE_CLOUD/zone-$5"
    echo WAITING_FOR_RESOURCES >"$things/$5" ;;
  'gcloud compute tpus queued-resources describe'*)
    [[ ! $fails ]] || finish
    exists "$5" || refuse 'NOT_FOUND: no such queued resource'
    cat "$things/$5"
    case $call in
      *--zone=full*) ;;
      *--zone=broken*) echo FAILED >"$things/$5" ;;
      *) if [[ $(<"$things/$5") == WAITING* ]]; then echo ACTIVE >"$things/$5"; fi ;;
    esac ;;
  'gcloud compute tpus queued-resources delete'*)
    [[ ! $fails ]] || finish
    exists "$5" || refuse 'NOT_FOUND: no such queued resource'
    rm "$things/$5" ;;
  'gcloud compute tpus queued-resources ssh'*'worker.sh follow'*)
    if [[ -s $FAKE_CLOUD/preemptions ]]; then
      how=$(head -n 1 "$FAKE_CLOUD/preemptions")
      sed -i 1d "$FAKE_CLOUD/preemptions"
      # SIGTERM came to the run before the cloud says that the machines are gone.
      if [[ $how == saved ]]; then echo 143 >"$FAKE_CLOUD/status" && exit 1; fi
      echo SUSPENDED >"$things/$5"
      exit 255
    fi
    echo 'step 8/8  loss 0.5'
    exit "$([[ $fails ]] && echo 1 || echo "${FAKE_STATUS-0}")" ;;
  'gcloud compute tpus queued-resources ssh'*'worker.sh status'*)
    cat "$FAKE_CLOUD/status" 2>/dev/null || echo "${FAKE_STATUS-0}" ;;
  'xpk workload create'*) touch "$things/$(option workload)" ;;
  'xpk workload delete'*) [[ $fails ]] || rm "$things/$(option workload)" || exit 1 ;;
  'xpk workload list'*filter-by-job*)
    if [[ $call == *--zone=nowhere* ]]; then
      printf '[XPK] %s\n' 'no cluster c there' 'XPK failed, error code 1' && exit 1
    fi
    printf '%s   2026-01-01T00:00:00Z\n' 'Jobset Name' "$(ls "$things")" ;;
  'squeue'*) ls "$things" ;;
  'sbatch'*) touch "$things/17" && [[ $fails ]] || echo 17 ;;
  'sacct'*) if [[ -f $things/17 ]]; then echo RUNNING && rm "$things/17"; else echo COMPLETED; fi ;;
  'scancel'*) [[ $fails ]] || rm -f "$things/17" ;;
esac
finish
