#!/bin/sh
# Makes the recordings of this folder: Debian 12's espeak-ng 1.51 and sox 14.4.2.
set -e
cd "$(dirname "$0")"
say() { # file, voice, words a minute, text
  espeak-ng -v "$2" -s "$3" --stdout "$4" | sox -t wav - -r 16000 -c 1 -b 8 -D "$1"
}
say bridge.wav en-us 150 "The old bridge opens for the ships in the morning. Two leaves rise, and the traffic waits until they come down again."
say measure.wav en-gb 140 "Please measure the time that one step takes, and write the number on the second page."
