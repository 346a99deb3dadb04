// A program of many goroutines, maps and garbage; prints a checksum that depends only on its arguments.
package main

import (
	"fmt"
	"hash/crc32"
	"os"
	"runtime"
	"strconv"
	"sync"
)

type node struct {
	key   uint64
	data  []byte
	left  *node
	right *node
}

func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

func fill(data []byte, key uint64) {
	for i := range data {
		if i%8 == 0 {
			key = mix(key)
		}
		data[i] = byte(key >> (8 * (i % 8)))
	}
}

func (n *node) insert(key uint64, data []byte) *node {
	if n == nil {
		return &node{key: key, data: data}
	}
	if key < n.key {
		n.left = n.left.insert(key, data)
	} else {
		n.right = n.right.insert(key, data)
	}
	return n
}

func (n *node) check(sum uint32) uint32 {
	if n == nil {
		return sum
	}
	sum = n.left.check(sum)
	expected := make([]byte, len(n.data))
	fill(expected, n.key)
	if string(expected) != string(n.data) {
		fmt.Fprintf(os.Stderr, "node %x has lost its data\n", n.key)
		os.Exit(1)
	}
	sum = crc32.Update(sum, crc32.IEEETable, n.data)
	return n.right.check(sum)
}

func worker(id uint64, bytes int) uint32 {
	var root *node
	index := make(map[uint64]*[]byte)
	for used, n := 0, uint64(0); used < bytes; n++ {
		key := mix(id<<32 | n)
		data := make([]byte, 500+key%8000)
		fill(data, key)
		root = root.insert(key, data)
		index[key] = &data
		used += len(data)
		// Garbage, so that the collector has something to do.
		if n%4 == 0 {
			_ = make([]byte, 4096)
		}
	}
	sum := root.check(0)
	for key, data := range index {
		if len(*data) != int(500+key%8000) {
			fmt.Fprintln(os.Stderr, "the map has lost an entry")
			os.Exit(1)
		}
	}
	runtime.GC()
	return root.check(sum)
}

func main() {
	mebibytes, err := strconv.Atoi(os.Args[1])
	if err != nil {
		panic(err)
	}
	const workers = 4
	var sums [workers]uint32
	var group sync.WaitGroup
	for id := range sums {
		group.Add(1)
		go func(id int) {
			defer group.Done()
			sums[id] = worker(uint64(id), mebibytes<<20/workers)
		}(id)
	}
	group.Wait()
	fmt.Println("checksums", sums)
}
