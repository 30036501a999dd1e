# What is typed in the recording.
say() {
  printf '\033[1;32m$\033[0m '
  for ((i = 0; i < ${#1}; i++)); do
    printf '%s' "${1:i:1}"
    sleep 0.02
  done
  printf '\n'
  eval "$1"
  sleep 1
}
say 'ediffi draw "a red apple left of a cat, noto style" --seed 7 --preset fast --out apple.png'
say 'ediffi draw "a cat" --last-stage base --steps base=3 --dry-run'
say 'ediffi vary apple.png --images 2 --preset fast --last-stage sr256 --out another.png'
say 'ediffi edit apple.png "a red apple left of a cat, ink style" --strength 0.8 --preset fast --out ink.png'
say 'ediffi enlarge another-1.png --preset fast --out large.png'
say 'ediffi again apple.png --size 1280x1024 --out wide.png'
say 'ediffi draw "a red aple" --preset fats'
say 'ls -s *.png'
